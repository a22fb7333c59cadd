"""Checks of a predict request, which both protocols make between decoding it and running the model."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from infscale.servers.asgi.status import Code, StatusError, invalid
from infscale.servers.embedded.runtime import tensors
from infscale.servers.embedded.runtime.servable import DEFAULT_SIGNATURE, METHODS, Servable, Signature
from infscale.servers.embedded.runtime.tensors import Array


def signature_of(servable: Servable, name: str) -> Signature:
    """Return a signature that can be run, the default one for an empty name.

    Raises:
        StatusError: FAILED_PRECONDITION if there is none, INTERNAL if it is of another kind.
    """
    key = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(key)
    if signature is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
    if signature.method not in METHODS:
        expected = "{" + ", ".join(METHODS) + "}"
        text = f"Expected prediction signature method_name to be one of {expected}. Was: {signature.method}"
        raise StatusError(Code.INTERNAL, text)
    return signature


def check_names(signature: Signature, sent: Collection[str]) -> None:
    """Check that the inputs sent are those the signature takes.

    Raises:
        StatusError: INVALID_ARGUMENT: too many or too few, or as many but others.
    """
    expected = signature.inputs.keys()
    if len(sent) == len(expected) and all(alias in sent for alias in expected):
        return
    names = set(sent)
    if len(names) > len(expected) or (len(names) < len(expected) and not signature.defaults):
        raise invalid(
            f"input size does not match signature: {len(names)}!={len(expected)} "
            f"len({_braces(names)}) != len({_braces(expected)}). "
            f"Sent extra: {_braces(names - expected)}. Missing but required: {_braces(expected - names)}."
        )
    for alias, feed in signature.inputs.items():
        if alias not in names and alias not in signature.defaults:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {_braces(names)}, or default input alias set: "
                + ",".join(sorted(signature.defaults))
            )
    if names - expected:
        used = ",".join(sorted(names & expected))
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {used}, request input: {','.join(sorted(names))}"
        )


def check_types(signature: Signature, sent: Mapping[str, int]) -> None:
    """Check the data types of the inputs sent.

    Raises:
        StatusError: INVALID_ARGUMENT in the words of TensorFlow's session.
    """
    for index, (alias, dtype) in enumerate(signature.dtypes.items()):
        if sent.get(alias, dtype) != dtype:
            expected, got = tensors.type_name(dtype), tensors.type_name(sent[alias])
            raise invalid(f"Expects arg[{index}] to be {expected} but {got} is provided")


def check_outputs(signature: Signature, wanted: Sequence[str]) -> None:
    """Check a request's output filter.

    Raises:
        StatusError: INVALID_ARGUMENT for an unknown or a repeated alias.
    """
    seen: set[str] = set()
    for alias in wanted:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_braces(signature.outputs)}."
            )
        if alias in seen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def fill_defaults(signature: Signature, inputs: dict[str, Array]) -> None:
    """Add the signature's default for every input that a request leaves out."""
    for alias in signature.defaults:
        if alias not in inputs:
            inputs[alias] = tensors.decode(signature.defaults[alias], alias)


def _braces(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
