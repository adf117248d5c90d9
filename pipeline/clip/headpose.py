"""Read yaw, pitch, roll and place of the head from its face mesh.

A network for poses would bring weights and angles of its own; the mesh is there anyway, and the similarity that
carries an average head onto it is geometry, so it can be proved by projecting a head at known angles.

The mesh's own depth takes part. A fit to x and y alone under a perspective camera (solvePnP) reads shape as pitch:
on rendered heads of four shapes it was off by 5.0° in pitch where this one is off by 2.1°.

Signs, in degrees, of this project and of what is usually met (all angles zero: the face looks at the camera):

====================================  ======================  ==========  ==================
source                                yaw +                   pitch +     roll +
====================================  ======================  ==========  ==================
this project, `anitalk-1`             nose to image left      nose up     clockwise on screen
300W-LP, Hopenet, FSA-Net             nose to image left      nose up     clockwise on screen
Rx, Ry, Rz of OpenCV's camera axes    nose to image left      nose down   clockwise on screen
(solvePnP), R = Rz·Ry·Rx
====================================  ======================  ==========  ==================

So R = Rz(roll) · Ry(yaw) · Rx(-pitch) in camera axes x right, y down, z forward, with

    Rx(a) = [[1, 0, 0], [0, cos a, -sin a], [0, sin a, cos a]]
    Ry(a) = [[cos a, 0, sin a], [0, 1, 0], [-sin a, 0, cos a]]
    Rz(a) = [[cos a, -sin a, 0], [sin a, cos a, 0], [0, 0, 1]]

applied to column vectors of the canonical face, whose axes are the camera's and which looks along -z.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from pipeline.models.canonical import align
from pipeline.models.layouts import FACE_MESH_468, Layout
from schemas.face import XYXY

if TYPE_CHECKING:  # starts a network runtime, which only some configurations need
    from pipeline.models.pose_networks import PoseNetwork

Rotation = Float64[np.ndarray, "3 3"]
PoseSource = Literal["mesh", "pnp"] | Float32[np.ndarray, "T 3"]

# The camera is unknown; a distance needs one. Two picture widths of focal length see 28° across.
FOCAL_WIDTHS = 2.0


@dataclass(frozen=True, slots=True)
class HeadPose:
    """``scale * rotation @ canonical + shift`` is the head in the picture, all in pixels, z away from the viewer."""

    scale: float
    rotation: Rotation
    shift: Float64[np.ndarray, "3"]


def rotation_from_angles(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Rotation:
    """Rz(roll) · Ry(yaw) · Rx(-pitch), from degrees in this project's signs."""
    a, b, c = math.radians(-pitch_deg), math.radians(yaw_deg), math.radians(roll_deg)
    rx = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    ry = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    rz = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def angles_from_rotation(rotation: Rotation) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees: the inverse of `rotation_from_angles` for |yaw| < 90."""
    yaw = math.asin(min(1.0, max(-1.0, -float(rotation[2, 0]))))
    pitch = -math.atan2(float(rotation[2, 1]), float(rotation[2, 2]))
    roll = math.atan2(float(rotation[1, 0]), float(rotation[0, 0]))
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def pose_from_mesh(points: Float32[np.ndarray, "P 3"], layout: Layout = FACE_MESH_468) -> HeadPose:
    """Fit the canonical face's rigid points to a face's (x, y, z in pixels) by least squares in three dimensions.

    Weak perspective, as the points' depth is: a head near the edge of a wide picture reads a degree or two off.
    """
    return HeadPose(*align(layout.average()[layout.rigid], points[layout.rigid].astype(np.float64)))


def rotation_by_pnp(points: Float32[np.ndarray, "P 3"], layout: Layout, width_px: int, height_px: int) -> Rotation:
    """Turn the canonical face until its rigid points, seen by a pinhole camera, lie on those in the picture.

    The camera looks at the picture's centre with a focal length of `FOCAL_WIDTHS` widths; no depth takes part. SQPnP
    (Terzakis and Lourakis, ECCV 2020) finds the pose without a first guess, Levenberg and Marquardt refine it.
    """
    focal = FOCAL_WIDTHS * width_px
    # Pixel centres lie at whole numbers, so the picture's centre is half a pixel before its half.
    camera = np.array([[focal, 0.0, (width_px - 1) / 2], [0.0, focal, (height_px - 1) / 2], [0.0, 0.0, 1.0]])
    bones = np.ascontiguousarray(layout.average()[layout.rigid])
    seen = np.ascontiguousarray(points[layout.rigid, :2], np.float64)
    _, turn, shift = cv2.solvePnP(bones, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    turn, _ = cv2.solvePnPRefineLM(bones, seen, camera, None, turn, shift)
    return cv2.Rodrigues(turn)[0]


class AngleReader:
    """Feed every output frame of a clip in order; keeps the angles that a network reads in each."""

    def __init__(self, network: "PoseNetwork") -> None:
        self._network = network
        self._angles: list[tuple[float, float, float]] = []

    def add(self, frame: UInt8[np.ndarray, "H W 3"], face: XYXY) -> None:
        """One RGB frame; ``face`` is the face box on it."""
        self._angles.append(self._network.read(frame, face))

    @property
    def angles(self) -> Float32[np.ndarray, "T 3"]:
        """Yaw, pitch and roll of all of them, in degrees."""
        return np.array(self._angles, np.float32).reshape(-1, 3)


def estimate_poses(
    points: Float32[np.ndarray, "T P 3"],
    confidence: Float32[np.ndarray, "T"],
    width_px: int,
    height_px: int,
    layout: Layout = FACE_MESH_468,
    angles: PoseSource = "mesh",
) -> Float32[np.ndarray, "T 7"]:
    """Head pose per frame of a clip.

    Args:
        points: x, y, z in pixels of the clip's frames.
        confidence: 0 where a frame has no face.
        width_px: width of the frames.
        height_px: height of the frames.
        layout: where the points lie on the face.
        angles: the fit in three dimensions (``mesh``), ``pnp``, or yaw, pitch, roll [T, 3] in degrees that a network
            read from the pictures. The place always comes from the fit.

    Returns:
        `POSE_FIELDS`: yaw, pitch, roll in degrees; tx, ty, the centre of the head's rigid points as a share of
        width and height; tz, its distance in outer-eye-corner distances for a focal length of `FOCAL_WIDTHS`
        widths; confidence as given. Frames without a face are all zero.
    """
    poses = np.zeros((len(points), 7), np.float32)
    for frame in np.flatnonzero(confidence > 0):
        pose = pose_from_mesh(points[frame], layout)
        if isinstance(angles, np.ndarray):
            turn = angles[frame]
        elif angles == "pnp":
            turn = angles_from_rotation(rotation_by_pnp(points[frame], layout, width_px, height_px))
        else:
            turn = angles_from_rotation(pose.rotation)
        position = (pose.shift[0] / width_px, pose.shift[1] / height_px, FOCAL_WIDTHS * width_px / pose.scale)
        poses[frame] = (*turn, *position, confidence[frame])
    return poses
