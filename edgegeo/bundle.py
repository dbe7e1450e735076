"""The bundle: a self-describing directory that export writes and the runtime reads.

    NAME/
      edgegeo.json             this module's `Manifest`
      tokenizer.json config.json preprocessor_config.json ...   the Hugging Face files beside it
      embed_tokens.npy         token-embedding table (vocabulary, hidden), memory-mapped by the runtime
      head_rows.npy            the LM-head rows of the yes/no tokens (rows, hidden) float32
      queries.npy              shared latent queries (queries, hidden) float32, with SLQ only
      golden.npz               golden inputs and outputs, re-run by `edgegeo verify`
      onnx/*.onnx (+ .onnx_data)

Export and runtime share this file and nothing else. JSON, npy and ONNX only: nothing here is ever unpickled.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from edgegeo.errors import BundleError
from edgegeo.roles import EmbedRole as EmbedRole
from edgegeo.roles import GenerateRole as GenerateRole
from edgegeo.roles import PairQuestion as PairQuestion
from edgegeo.roles import RerankRole as RerankRole
from edgegeo.roles import Roles as Roles
from edgegeo.roles import Segment as Segment
from edgegeo.schema import SchemaFault, parse, to_plain
from edgegeo.staging import move_in
from edgegeo.staging import staging as staging
from edgegeo.staging import sync as sync

MANIFEST_NAME = "edgegeo.json"
SCHEMA_VERSION = 3
UNSEALED_VERSION = 2
"""Read too, though its manifests hold no digest of their own."""


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle, by its path relative to the bundle with forward slashes."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ImageSpec:
    """Image preprocessing as data; `kind` names the family's rule under edgegeo/runtime/pictures/."""

    kind: str
    """The rule: "smolvlm", "internvl", "qwen2_5_vl", "gemma3", "clip" or "siglip"."""
    size: int
    """Side of one square tile of the pixel tensor; for families of native resolution, the step both sides snap to."""
    resample: int  # Pillow's number of the filter
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tokens: int
    """Image tokens the trunk sees for one tile; 0 where they follow from the picture's own grid."""
    longest_edge: int = 0
    """smolvlm: first resize, the longest edge, aspect kept (then the square tile)."""
    min_tiles: int = 1
    max_tiles: int = 1
    """Most tiles a picture is split into, besides the whole; 1: never split."""
    thumbnail: bool = False
    """internvl: whether a split picture is also shown whole."""
    min_pixels: int = 0
    max_pixels: int = 0
    """qwen2_5_vl: the area a picture is scaled into."""
    patch: int = 0
    merge: int = 0
    window: int = 0
    """qwen2_5_vl: side of a patch, patches merged into one token a side, side of an attention window in pixels."""
    min_crop: int = 0
    min_ratio: float = 0.0
    """gemma3: smallest crop of pan and scan in pixels, and the aspect ratio from which it starts."""
    shortest_edge: int = 0
    """clip: first resize, the shortest edge, aspect kept (then the centre is cropped to `size`)."""
    marks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Token ids the rule writes around image tokens, by the rule's own names ("before", "after", ...)."""


@dataclass(frozen=True)
class Component:
    """One ONNX graph."""

    kind: str
    """"vision", "trunk", "head" or, in a dual encoder, "text"."""
    file: str
    precision: str
    """What its matrix weights are stored and multiplied as, the coarsest of them: fp32, fp16, int8, int4."""
    output: str = ""
    """The graph's output of a vision or text component; "": image_features, text_embeds."""
    layers: dict[str, str] = field(default_factory=dict)
    """Precision of the matrices that are kept finer, by layer."""
    cache: str = "fp32"
    """What a decoder's KV cache is stored in."""

    @property
    def precisions(self) -> frozenset[str]:
        """Every precision that one of its matrices has."""
        return frozenset({self.precision, *self.layers.values()})


@dataclass(frozen=True)
class TrunkSpec:
    """Shape of the decoder's KV cache and its limits; the same for every trunk of the bundle."""

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    max_positions: int
    rope: str = "plain"
    """Rotary positions: "plain" (running index) or "mrope" (time, row and column, fed as `position_ids`)."""
    blocks: bool = False
    """Whether the positions of one picture see each other both ways (fed as `image_blocks`)."""


@dataclass(frozen=True)
class Manifest:
    """edgegeo.json, whole."""

    schema: int
    name: str
    family: str
    dialect: str
    target: str
    components: dict[str, Component]
    image: ImageSpec
    trunk: TrunkSpec | None
    """None in a dual encoder, which has no decoder."""
    roles: Roles
    tokenizer: str
    embed_tokens: str | None
    """The token-embedding table; None where the text encoder holds it."""
    golden: str
    accuracy: dict[str, Any]
    """The accuracy card: metric -> value, interval, and the same before quantisation."""
    calibration: dict[str, Any]
    """What the activations were calibrated on: sample count, hash, seed; {} where nothing was calibrated."""
    source: dict[str, Any]
    """Checkpoint and adapters the bundle was made from, with their hashes."""
    tools: dict[str, str]
    """Versions of what made it."""
    fit: str | None = None
    """File of the fitted fusion and doubt (edgegeo/runtime/doubt.py); None: radius and confidence are unknown."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """Every file but the manifest itself."""
    digest: str = ""
    """`digest_of` everything above: an edit by hand is as plain as one of a file; "" in bundles of version 2."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its place, its manifest, its fingerprint."""

    path: Path
    manifest: Manifest
    fingerprint: str
    """sha256 of edgegeo.json, which holds the hash of every other file: it identifies the bundle whole."""

    def file(self, relative: str) -> Path:
        """Absolute path of a listed file; BundleError for one that the manifest does not list."""
        if relative not in self.manifest.files:
            raise BundleError(f"{self.path}: the bundle has no file '{relative}'; export it again")
        return self.path / relative

    def component(self, name: str) -> Path:
        """Absolute path of the graph of the component `name`."""
        if name not in self.manifest.components:
            raise BundleError(f"{self.path}: the bundle has no component '{name}'; export it again")
        return self.file(self.manifest.components[name].file)

    def graph_bytes(self, name: str) -> int:
        """Size of the component `name`: its graph and the weights beside it."""
        file = self.manifest.components[name].file
        return sum(entry.bytes for key, entry in self.manifest.files.items() if key in (file, f"{file}_data"))

    @property
    def decoder(self) -> TrunkSpec:
        """Shape and limits of the decoder; BundleError for a dual encoder, which has none."""
        if self.manifest.trunk is None:
            raise BundleError(f"{self.path}: a dual encoder has no decoder; it embeds and searches only")
        return self.manifest.trunk

    @property
    def embedding_id(self) -> str:
        """Identifies the embedding space: a gallery made under another one can't be searched with this bundle."""
        named, role = self.manifest, self.manifest.roles.embed
        if role is None:
            raise BundleError(f"{self.path}: the bundle offers no embedding; export it with a retriever")
        graphs = [named.components[part].file for part in (role.vision, role.trunk)]
        names = {named.tokenizer, named.embed_tokens, role.queries, *graphs, *(f"{graph}_data" for graph in graphs)}
        # Older galleries must still fit; shorter embeddings are the same ones, cut.
        said = {k: v for k, v in to_plain(role).items() if (k, v) != ("last", 1) and k not in ("matryoshka", "scales")}
        hashes = {name: entry.sha256 for name, entry in named.files.items() if name in names}
        text = json.dumps([said, to_plain(named.image), hashes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all files on disk, the manifest included."""
        return sum(f.bytes for f in self.manifest.files.values()) + (self.path / MANIFEST_NAME).stat().st_size


def open_bundle(path: str | Path, check_hashes: bool = True) -> Bundle:
    """Read and check a bundle; nothing of it is parsed before its hash is known to be right.

    Raises BundleError for a missing folder, an unknown version, an edited manifest, a missing, truncated, altered or
    unlisted file, a path that leaves the bundle, or a link. `check_hashes=False` checks the manifest, and only the
    sizes of files (for many gigabytes on slow storage).
    """
    root = Path(path)
    try:
        return _open(root, check_hashes)
    except OSError as error:
        raise BundleError(
            f"{error.filename or root} can't be read ({error.strerror or error}); mend its permissions, or copy the "
            "bundle again"
        ) from None


def _open(root: Path, check_hashes: bool) -> Bundle:
    if root.is_file():
        raise BundleError(f"{root} is a file; a bundle is a folder with {MANIFEST_NAME} in it, name that")
    if not root.is_dir():
        raise BundleError(f"no bundle at {root}; make one with: edgegeo export --int8 -o {root}")
    try:
        raw = (root / MANIFEST_NAME).read_bytes()
        data = json.loads(raw)
    except FileNotFoundError:
        raise BundleError(f"{root} has no {MANIFEST_NAME}: it is not a bundle; make one with edgegeo export") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{root / MANIFEST_NAME} can't be read ({error}); export the bundle again") from None
    version = data.get("schema") if isinstance(data, dict) else None
    if version not in (SCHEMA_VERSION, UNSEALED_VERSION):
        raise BundleError(
            f"{root} has bundle version {version!r:.20}, this edgegeo reads version {SCHEMA_VERSION}; "
            "export it again with this edgegeo, or install the one that made it"
        )
    if (version != UNSEALED_VERSION or "digest" in data) and data.get("digest") != digest_of(data):
        raise BundleError(
            f"{root / MANIFEST_NAME} differs from the hash in it: it was edited or damaged; export the bundle again"
        )
    try:
        manifest = parse(Manifest, data, MANIFEST_NAME)
    except SchemaFault as fault:
        raise BundleError(f"{root / MANIFEST_NAME} is damaged ({fault}); export the bundle again") from None
    for name, entry in manifest.files.items():
        _check_file(root, name, entry, check_hashes)
    _check_folders(root, manifest)
    return Bundle(root, manifest, hashlib.sha256(raw).hexdigest())


def _check_file(root: Path, name: str, entry: FileEntry, check_hash: bool) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise BundleError(f"{root}: the manifest names a path outside the bundle ({name!r:.60}); don't use this bundle")
    file = root / pure
    if not file.is_file():
        raise BundleError(f"{file} is missing; export the bundle again")
    # Links could make a checked file another one later (CVE-2026-27489 and its kin).
    symlink = any((root / Path(*pure.parts[: i + 1])).is_symlink() for i in range(len(pure.parts)))
    if symlink or file.stat().st_nlink > 1:
        raise BundleError(f"{file} is a link; a bundle holds plain files only, copy it with cp -rL or export it again")
    if (size := file.stat().st_size) != entry.bytes:
        raise BundleError(f"{file} has {size} bytes instead of {entry.bytes}: it was cut off or altered; export again")
    if check_hash and sha256_of(file) != entry.sha256:
        raise BundleError(f"{file} differs from its recorded hash: it was damaged or altered; export the bundle again")


def _check_folders(root: Path, manifest: Manifest) -> None:
    """A graph may name any file below its folder as its weights, so there is none whose hash wasn't checked."""
    if strange := [part.file for part in manifest.components.values() if part.file not in manifest.files]:
        raise BundleError(f"{root}: the manifest lists no graph {strange[0]!r:.80}; export the bundle again")
    for folder in {(root / part.file).parent for part in manifest.components.values()}:
        for file in folder.rglob("*"):
            name = file.relative_to(root).as_posix()
            if name not in (*manifest.files, MANIFEST_NAME) and (file.is_symlink() or not file.is_dir()):
                raise BundleError(f"{root}: the manifest does not list {name!r:.80}; remove it or export again")


def digest_of(manifest: dict[str, Any]) -> str:
    """Hex sha256 of a manifest as plain data, its `digest` left out; the order of keys and blanks don't matter.

    It guards against damage and edits by hand, not against someone who writes a digest that fits.
    """
    said = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_target(target: Path) -> None:
    """BundleError where something stands that a bundle must not replace: long work asks before it begins."""
    if target.exists() and not (target / MANIFEST_NAME).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(f"{target} exists and is not a bundle; choose another place with -o")


def publish(folder: Path, manifest: Manifest, target: str | Path) -> Bundle:
    """Hash every file in `folder`, write the manifest, sync, move the whole to `target`, and read it back.

    What stood at `target` stays until the new bundle is complete, and is put back if the move fails. A folder at
    `target` that is not a bundle is never replaced: BundleError.
    """
    target = Path(target).absolute()
    check_target(target)
    files = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST_NAME):
        sync(file)
        files[file.relative_to(folder).as_posix()] = FileEntry(file.stat().st_size, sha256_of(file))
    plain = to_plain(replace(manifest, schema=SCHEMA_VERSION, files=files))
    text = json.dumps(plain | {"digest": digest_of(plain)}, indent=1, allow_nan=False)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
    sync(folder / MANIFEST_NAME)
    os.chmod(folder, 0o755)  # mkdtemp makes it private; a service under another user must read it
    open_bundle(folder)
    move_in(folder, target)
    return open_bundle(target)
