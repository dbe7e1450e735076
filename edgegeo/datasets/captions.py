"""Pictures with about five captions each: COCO, Flickr30K, UCM, RSICD and RSITMD."""

from collections.abc import Callable
from pathlib import Path

from edgegeo.datasets.form import Form
from edgegeo.datasets.karpathy import PER_IMAGE, dataset_named, load_karpathy, split_files
from edgegeo.datasets.protocol import CAPTIONS
from edgegeo.datasets.reader import Reader, RowFault, lines_of, text_of
from edgegeo.datasets.sets import Item, RetrievalSet
from edgegeo.errors import InputError

REMOTE_SENSING = ("ucm", "rsicd", "rsitmd")
PARTS = ("filename", "caps")


def load_remote_sensing(reader: Reader, *, captions: int | None = PER_IMAGE) -> RetrievalSet:
    """UCM, RSICD, RSITMD: from SPLIT_caps.txt and SPLIT_filename.txt, or from a Karpathy split file.

    The list of file names has one line a picture in train and one line a CAPTION in test; which of the two is told by
    its length. captions: as in `load_karpathy`.
    """
    lists = _lists(reader)
    if lists is None:
        return load_karpathy(reader, captions=captions)
    names_file, captions_file = lists
    names, texts = _stripped(lines_of(names_file)), lines_of(captions_file)
    if names and len(texts) % len(names):
        texts = _stripped(texts)
    per_name = _captions_a_name(reader, names_file, len(names), captions_file, len(texts))
    folders = [reader.root, *(p for p in sorted(reader.root.iterdir()) if p.is_dir() and "image" in p.name.lower())]
    items: list[Item] = []
    images: dict[str, Item] = {}
    numbers: dict[str, int] = {}
    for line, raw in enumerate(texts):
        with reader.row(f"{captions_file.name}:{line + 1}"):
            name, text = _text(names[line // per_name], "file name"), _text(raw, "caption")
            number = numbers.get(name, 0)
            path = reader.picture(name, *folders)
            numbers[name] = number + 1
            if reader.split != "train" and captions is not None and number >= captions:
                raise RowFault(f"beyond the first {captions} captions of its picture", name)
            images.setdefault(name, Item(name, name, name, image=path))
            items.append(Item(f"{name}#{number}", name, name, text=text))
    return RetrievalSet(tuple(items), tuple(images.values()), (CAPTIONS,), reader.report())


def _stripped(lines: list[bytes]) -> list[bytes]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def _captions_a_name(reader: Reader, names_file: Path, names: int, captions_file: Path, captions: int) -> int:
    if names and captions == names:
        reader.trap("file names are listed once a caption, not once a picture", names_file.name)
        return 1
    if not names or captions % names:
        raise InputError(
            f"{captions_file.name} has {captions} lines and {names_file.name} {names}: neither as many nor a whole "
            "multiple, so captions can't be given to pictures; download both again"
        )
    return captions // names


def _text(raw: bytes, what: str) -> str:
    try:
        return text_of(raw.decode("utf-8"), what)
    except UnicodeDecodeError:
        raise RowFault(f"{what} is not UTF-8", raw) from None


def _lists(reader: Reader) -> tuple[Path, Path] | None:
    if reader.file is not None:
        return None
    for end in ("", "_verify"):
        files = [reader.root / f"{reader.split}_{part}{end}.txt" for part in PARTS]
        if all(file.is_file() for file in files):
            return files[0], files[1]
    return None


def _is_karpathy(*names: str) -> Callable[[Path], str | None]:
    def recognise(root: Path) -> str | None:
        found = next((f for f in split_files(root) if f.is_file() and (not names or dataset_named(f) in names)), None)
        return found.name if found else None

    return recognise


def _is_remote_sensing(name: str) -> Callable[[Path], str | None]:
    def recognise(root: Path) -> str | None:
        if root.is_dir() and any(root.glob("*_filename*.txt")) and any(root.glob("*_caps*.txt")):
            named = next((one for one in REMOTE_SENSING if one in root.resolve().name.lower()), name)
            return "*_caps.txt and *_filename.txt" if named == name else None
        return _is_karpathy(name)(root)

    return recognise


FORMS = (
    *(
        Form(name, title, layout, ("train", "val", "test"), load_karpathy, _is_karpathy(name))
        for name, title, layout in (
            ("coco", "COCO captions, Karpathy split", "dataset_coco.json; train2014/, val2014/"),
            ("flickr30k", "Flickr30K, Karpathy split", "dataset_flickr30k.json; flickr30k-images/ or images/"),
        )
    ),
    Form(
        "karpathy",
        "any captions in a Karpathy split file",
        "dataset_*.json of {'images': [{'filename', 'split', 'sentences': [{'raw'}]}]}; images/",
        ("train", "val", "test"),
        load_karpathy,
        _is_karpathy(),
    ),
    *(
        Form(
            name,
            f"{name.upper()} remote-sensing captions",
            f"{{train,val,test}}_caps.txt and _filename.txt, or dataset_{name}.json; *images*/",
            ("train", "val", "test"),
            load_remote_sensing,
            _is_remote_sensing(name),
        )
        for name in REMOTE_SENSING
    ),
)
