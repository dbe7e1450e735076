"""Which retriever a bundle holds, read off its manifest."""

from edgegeo.bundle import Bundle

LORA, SLQ, HYBRID, DUAL, FROZEN = "lora", "slq", "hybrid", "dual", "frozen"


def method_of(bundle: Bundle) -> str:
    """lora (NGCG-MLLM, any PEFT adapter), slq (shared queries, all else frozen), hybrid (queries, and an adapted vision
    tower), dual (two towers), frozen (no adapter); empty for a bundle that does not embed.
    """
    roles = bundle.manifest.roles
    if roles.embed is None:
        return ""
    if roles.embed.pooling == "dual":
        return DUAL
    if roles.embed.pooling != "queries":
        return LORA if (bundle.manifest.source.get("adapters") or {}).get("embed") else FROZEN
    # Roles share the tower of the frozen base; an adapted one is a component of its own.
    others = [role.vision for role in (roles.rerank, roles.generate) if role is not None]
    return HYBRID if others and roles.embed.vision not in others else SLQ
