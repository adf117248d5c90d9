"""What the paper's tables say of other clips: a scale to read one's own figures by, not a target to the third digit."""

from training.recipes.base import Literature

# Gong et al., AnyTalk: tables 2 and 4 of the paper, 1 to 4 of its supplement; (driving, source) as it calls domains.
_FIGURES = {
    ("cross-domain", "disney_human", "real"): {
        "AnyTalk": {"fid": 13.039, "csim": 0.848, "ceim": 0.8927},
        "face-vid2vid": {"fid": 15.224, "csim": 0.827, "ceim": 0.8923},
    },
    ("cross-domain", "real", "disney_human"): {
        "AnyTalk": {"fid": 24.144, "csim": 0.830, "ceim": 0.8936},
        "face-vid2vid": {"fid": 24.921, "csim": 0.825, "ceim": 0.8899},
        "DaGAN": {"fid": 23.665, "csim": 0.821, "ceim": 0.8842},
    },
    ("cross-domain", "disney_animal", "real"): {
        "AnyTalk": {"fid": 13.312, "csim": 0.848, "ceim": 0.9065},
        "face-vid2vid": {"fid": 15.977, "csim": 0.804, "ceim": 0.9036},
    },
    ("cross-domain", "real", "disney_animal"): {
        "AnyTalk": {"fid": 44.481, "csim": 0.770, "ceim": 0.9139},
        "face-vid2vid": {"fid": 50.038, "csim": 0.756, "ceim": 0.9131},
    },
    ("cross-identity", "real", "real"): {
        "AnyTalk": {"fid": 13.197, "csim": 0.867, "cpbd": 0.3293},
        "face-vid2vid": {"fid": 13.861, "csim": 0.866, "cpbd": 0.3244},
    },
    ("cross-identity", "disney_human", "disney_human"): {
        "AnyTalk": {"fid": 22.637, "csim": 0.8196, "cpbd": 0.2655},
        "face-vid2vid": {"fid": 23.372, "csim": 0.8133, "cpbd": 0.2572},
    },
    ("same-identity", "real", "real"): {
        "AnyTalk": {"l1": 0.0387, "lpips": 0.157, "cpbd": 0.2650, "akd_l1": 1.362, "aed_openface_sq": 0.124},
        "face-vid2vid": {"l1": 0.0400, "lpips": 0.158, "cpbd": 0.2741, "akd_l1": 1.540, "aed_openface_sq": 0.129},
        "DaGAN": {"l1": 0.0383, "lpips": 0.156, "cpbd": 0.2277, "akd_l1": 1.265, "aed_openface_sq": 0.117},
    },
    ("same-identity", "disney_human", "disney_human"): {
        "AnyTalk": {"l1": 0.0429, "lpips": 0.1776, "cpbd": 0.2663, "akd_l1": 2.597, "aed_openface_sq": 0.205},
        "face-vid2vid": {"l1": 0.0435, "lpips": 0.1819, "cpbd": 0.2626, "akd_l1": 2.701, "aed_openface_sq": 0.218},
    },
}

PUBLISHED = Literature(
    _FIGURES,
    notes=(
        "*Published* figures (AnyTalk, tables 2 and supplement 1 to 4) are of other clips at 256 px and larger.",
        "Their `ceim` does not say which features it compares; `aed_openface_sq` needs a network that is not here.",
    ),
)
