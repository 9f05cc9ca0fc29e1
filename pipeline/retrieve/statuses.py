"""DIMSE statuses in words: PS3.4 C.4.1 to C.4.3 (find, move, get), PS3.4 B.2.3 (store), PS3.7 annex C (all)."""

from __future__ import annotations

# first, last, services, words
_TABLE: tuple[tuple[int, int, str, str], ...] = (
    (0x0000, 0x0000, "find move get store", "Success"),
    (0xFE00, 0xFE00, "find move get", "Cancelled: the operation was ended on request"),
    (0xFF00, 0xFF00, "find move get", "Pending: more follows"),
    (0xFF01, 0xFF01, "find", "Pending: an optional key is not supported"),
    (0xA700, 0xA700, "find move get store", "Refused: out of resources"),
    (0xA701, 0xA701, "move get", "Refused: out of resources, unable to calculate the number of matches"),
    (0xA702, 0xA702, "move get", "Refused: out of resources, unable to perform sub-operations"),
    (0xA801, 0xA801, "move", "Refused: move destination unknown"),
    (0xA900, 0xA900, "find move get store", "Error: the identifier or data set does not match the SOP class"),
    (0xAA00, 0xAA00, "get move", "Failed: none of the frames requested were found"),
    (0xAA02, 0xAA02, "get move", "Failed: unable to create a new object for this SOP class"),
    (0xAA03, 0xAA03, "get move", "Failed: unable to extract frames"),
    (0xB000, 0xB000, "move get", "Warning: sub-operations ended, one or more failed or warned"),
    (0xB000, 0xB000, "store", "Warning: data elements were coerced"),
    (0xB006, 0xB006, "store", "Warning: elements were discarded"),
    (0xB007, 0xB007, "store", "Warning: the data set does not match the SOP class"),
    (0xA700, 0xA7FF, "store", "Refused: out of resources"),
    (0xA900, 0xA9FF, "store", "Error: the data set does not match the SOP class"),
    (0xC000, 0xCFFF, "find move get", "Failed: unable to process"),
    (0xC000, 0xCFFF, "store", "Error: cannot understand"),
    (0x0105, 0x0105, "", "Failed: no such attribute"),
    (0x0106, 0x0106, "", "Failed: invalid attribute value"),
    (0x0107, 0x0107, "", "Warning: attribute list error"),
    (0x0110, 0x0110, "", "Failed: processing failure"),
    (0x0111, 0x0111, "", "Failed: duplicate SOP instance"),
    (0x0112, 0x0112, "", "Failed: no such object instance"),
    (0x0115, 0x0115, "", "Failed: invalid argument value"),
    (0x0116, 0x0116, "", "Warning: attribute value out of range"),
    (0x0117, 0x0117, "", "Failed: invalid object instance"),
    (0x0118, 0x0118, "", "Failed: no such SOP class"),
    (0x0119, 0x0119, "", "Failed: class and instance conflict"),
    (0x0120, 0x0120, "", "Failed: missing attribute"),
    (0x0121, 0x0121, "", "Failed: missing attribute value"),
    (0x0122, 0x0122, "", "Refused: SOP class not supported"),
    (0x0124, 0x0124, "", "Refused: not authorised"),
    (0x0210, 0x0210, "", "Failed: duplicate invocation"),
    (0x0211, 0x0211, "", "Failed: unrecognised operation"),
    (0x0212, 0x0212, "", "Failed: mistyped argument"),
    (0x0213, 0x0213, "", "Failed: resource limitation"),
)
# What is no DIMSE status: how an association ended. HTTP statuses stand as they are.
NOT_ANSWERED = "No answer within the time that the project file gives"
DROPPED = "The association was aborted or dropped before the last answer"
NOT_OPENED = "No association: the PACS could not be reached, or rejected it"
NOT_TRUSTED = "No connection: the certificate of the PACS, or ours, was not accepted"
NOT_NEGOTIATED = "The PACS does not accept this service"


def words(status: int, service: str) -> str:
    """Return a status as `0xA702 Refused: …`. `service`: find, move, get or store."""
    for first, last, services, said in _TABLE:
        if first <= status <= last and (not services or service in services.split()):
            return f"0x{status:04X} {said}"
    return f"0x{status:04X} A status that the standard does not name"


def busy(status: int) -> bool:
    """Tell whether a PACS says that it has no room for more just now."""
    return 0xA700 <= status <= 0xA7FF or status == 0x0213


def failed(status: int) -> bool:
    """Tell whether a final status means that the operation as a whole failed (PS3.7 C.1 to C.5)."""
    return status not in (0x0000, 0xB000, 0xFE00, 0xFF00, 0xFF01, 0x0001, 0x0107, 0x0116)
