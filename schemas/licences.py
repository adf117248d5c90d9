"""What a licence's name says about commercial use and adaptations.

People write licences in many ways. Only those that are recognised beyond doubt get an SPDX id and an answer;
for everything else the answer is "unknown", which a careful release treats as "no".
"""

import re

# Ids of https://spdx.org/licenses that films, talks and models are commonly published under.
_OTHER_IDS = (
    "CC0-1.0", "CC-PDDC", "CC-PDM-1.0", "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "Unlicense",
    "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "GFDL-1.2-only", "GFDL-1.3-only",
    "GFDL-1.3-or-later", "OGL-UK-2.0", "OGL-UK-3.0", "etalab-2.0", "ODbL-1.0", "PDDL-1.0", "FAL-1.3", "0BSD", "WTFPL",
    "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ODC-By-1.0",
)  # fmt: skip
_CC_TERMS = ("BY", "BY-SA", "BY-NC", "BY-ND", "BY-NC-SA", "BY-NC-ND")
_CC_VERSIONS = ("1.0", "2.0", "2.5", "3.0", "4.0")
SPDX_IDS = (*_OTHER_IDS, *(f"CC-{terms}-{version}" for terms in _CC_TERMS for version in _CC_VERSIONS))
_BY_FOLDED = {spdx.lower(): spdx for spdx in SPDX_IDS}
_CC_URL = re.compile(r"^https?://creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)(?:/.*)?$")
_CC_TEXT = re.compile(r"^cc[ -]?(by(?:[ -](?:nc|sa|nd))*)[ -]v?(\d\.\d)$")
_CC_LONG = re.compile(
    r"^creative commons attribution((?:[ -](?:noncommercial|non-commercial|sharealike|share-alike|noderivatives"
    r"|noderivs|no-derivatives))*)[ ]v?(\d\.\d)(?: international| unported| generic)?(?: licen[cs]e)?$"
)
_PUBLIC_DOMAIN = {"public domain", "publicdomain", "pd", "pdm", "public domain mark", "us public domain"}
_ALIASES = {
    "cc0": "CC0-1.0", "cc0 1.0": "CC0-1.0", "cc-0": "CC0-1.0", "cc zero": "CC0-1.0", "pdm": "CC-PDM-1.0",
    "public domain mark": "CC-PDM-1.0", "public domain mark 1.0": "CC-PDM-1.0", "pdm-1.0": "CC-PDM-1.0",
    "apache 2.0": "Apache-2.0", "mit license": "MIT",
}  # fmt: skip
_CC0_URL = re.compile(r"^https?://creativecommons\.org/publicdomain/(zero|mark)/1\.0(?:/.*)?$")


def _creative_commons(folded: str) -> str | None:
    if match := _CC0_URL.match(folded):
        return "CC0-1.0" if match[1] == "zero" else "CC-PDM-1.0"
    if match := _CC_URL.match(folded) or _CC_TEXT.match(folded):
        return _BY_FOLDED.get(f"cc-{match[1].replace(' ', '-')}-{match[2]}")
    if match := _CC_LONG.match(folded):
        words = match[1].replace("-", "").split()
        short = {"noncommercial": "nc", "sharealike": "sa", "noderivatives": "nd", "noderivs": "nd"}
        return _BY_FOLDED.get("-".join(["cc", "by", *(short[word] for word in words), match[2]]))
    return None


def license_id(text: str) -> str | None:
    """The SPDX id that ``text`` names, by id, Creative Commons address or usual wording; None if in doubt."""
    folded = " ".join(text.lower().split())
    return _BY_FOLDED.get(folded) or _ALIASES.get(folded) or _creative_commons(folded)


def _is_public_domain(text: str) -> bool:
    return " ".join(text.lower().split()) in _PUBLIC_DOMAIN


def commercial_use(text: str) -> bool | None:
    """Whether the licence named by ``text`` allows commercial use; None when it is not recognised."""
    spdx = license_id(text)
    if spdx is None:
        return True if _is_public_domain(text) else None
    return "-NC" not in spdx


def derivatives(text: str) -> bool | None:
    """Whether the licence named by ``text`` allows adaptations to be shared; None when it is not recognised."""
    spdx = license_id(text)
    if spdx is None:
        return True if _is_public_domain(text) else None
    return "-ND" not in spdx
