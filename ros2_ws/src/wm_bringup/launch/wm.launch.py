"""Perception and imagination, with a simulator if asked for.

    ros2 launch wm_bringup wm.launch.py                         # your camera, with the default topics
    ros2 launch wm_bringup wm.launch.py sim:=mujoco rviz:=true
    ros2 launch wm_bringup wm.launch.py sim:=gazebo
    ros2 launch wm_bringup wm.launch.py color_topic:=/head/rgb/image_rect depth_topic:=/head/depth/image_rect \
        camera_info_topic:=/head/rgb/camera_info params_file:=/path/to/my_robot.yaml

Precedence of parameters, later ones win: the packages' defaults, params_file, arguments given here.
The nodes configure and activate themselves; with autostart:=false a lifecycle manager does.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

CAMERA_TOPICS = ("color_topic", "depth_topic", "camera_info_topic")
MODELS = ("segmenter", "segmenter_model", "reasoner", "reasoner_model")
FROM_PARAMETERS = "; empty: as in the parameters files"

# Topics of rviz/wm.rviz that follow the namespace.
RVIZ_TOPICS = ("markers", "overlay", "instances", "imagined/image", "imagined/points", "imagined/markers")


def share(package, *parts):
    return str(Path(get_package_share_directory(package), *parts))


def is_true(text):
    if text.lower() not in ("true", "false", "1", "0"):
        raise RuntimeError(f"got {text!r}, expected true or false")
    return text.lower() in ("true", "1")


def make_nodes(context):
    def argument(name):
        return LaunchConfiguration(name).perform(context)

    namespace = argument("namespace").strip("/")
    sim = argument("sim")
    sim_time = argument("use_sim_time")
    common = {
        "use_sim_time": sim != "none" if sim_time == "auto" else is_true(sim_time),
        "autostart": is_true(argument("autostart")),
    }
    params_file = argument("params_file")
    if params_file and not Path(params_file).is_file():
        raise RuntimeError(f"params_file: {params_file} is not a file")

    def node(package, executable, name, names):
        given = {(f"pipeline.{key}" if key in MODELS else key): argument(key) for key in names if argument(key)}
        return Node(
            package=package,
            executable=executable,
            name=name,
            namespace=namespace,
            parameters=[
                share(package, "config", f"{name}.yaml"),
                *([params_file] if params_file else []),
                {**common, **given},
            ],
            output="screen",
            emulate_tty=True,
        )

    actions = [
        node(
            "wm_perception",
            "perception_node",
            "perception",
            (*CAMERA_TOPICS, "odometry_topic", "pose_source", "world_frame", *MODELS),
        ),
        node("wm_imagination", "imagination_node", "imagination", CAMERA_TOPICS),
    ]
    if sim == "mujoco":
        actions.append(mujoco(argument("scene"), int(argument("seed")), params_file))
    elif sim == "gazebo":
        actions += gazebo(is_true(argument("headless")))
    if is_true(argument("rviz")):
        actions.append(rviz(namespace, argument("color_topic"), common["use_sim_time"]))
    return actions


def mujoco(scene, seed, params_file):
    # It makes the time; the root namespace gives /camera/... as a real driver would.
    return Node(
        package="wm_sim",
        executable="sim_camera_node",
        name="sim_camera_node",
        parameters=[*([params_file] if params_file else []), {"scene": scene, "seed": seed}],
        output="screen",
        emulate_tty=True,
    )


def gazebo(headless):
    world = share("wm_sim", "worlds", "tabletop.sdf")
    # -r: runs at once; -s: no window, and then the camera needs a renderer that does without one.
    flags = "-r -s --headless-rendering" if headless else "-r"
    transforms = yaml.safe_load(Path(share("wm_sim", "config", "gz_static_tf.yaml")).read_text(encoding="utf-8"))
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(share("ros_gz_sim", "launch", "gz_sim.launch.py")),
            launch_arguments={"gz_args": f"{flags} {world}", "on_exit_shutdown": "true"}.items(),
        ),
        Node(
            package="ros_gz_bridge",
            executable="parameter_bridge",
            name="gz_bridge",
            parameters=[{"config_file": share("wm_sim", "config", "gz_bridge.yaml"), "use_sim_time": True}],
            output="screen",
        ),
        *(static_transform(row) for row in transforms),
        LogInfo(msg="Gazebo: the world is wm_sim/worlds/tabletop.sdf; the argument `scene` is for sim:=mujoco"),
    ]


def static_transform(row):
    keys = ("--x", "--y", "--z", "--qx", "--qy", "--qz", "--qw")
    values = [*row["translation"], *row["rotation"]]
    numbers = [text for key, value in zip(keys, values, strict=True) for text in (key, str(value))]
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name=f"static_{row['child']}",
        arguments=[*numbers, "--frame-id", row["parent"], "--child-frame-id", row["child"]],
        parameters=[{"use_sim_time": True}],
    )


def rviz(namespace, color_topic, use_sim_time):
    remappings = [(f"/wm/{topic}", f"/{namespace}/{topic}".replace("//", "/")) for topic in RVIZ_TOPICS]
    if color_topic:
        remappings.append(("/camera/color/image_raw", color_topic))
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        arguments=["-d", share("wm_bringup", "rviz", "wm.rviz")],
        parameters=[{"use_sim_time": use_sim_time}],
        remappings=[pair for pair in remappings if pair[0] != pair[1]],
    )


def generate_launch_description():
    def declare(name, default, description, choices=None):
        return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)

    return LaunchDescription(
        [
            declare("namespace", "wm", "of perception and imagination, and so of all their topics and services"),
            declare("use_sim_time", "auto", "read /clock; auto: with a simulator", ["auto", "true", "false"]),
            declare("params_file", "", "YAML with parameters of perception, imagination, sim_camera_node; read last"),
            declare("color_topic", "", "colour images" + FROM_PARAMETERS),
            declare("depth_topic", "", "depth images, registered to colour" + FROM_PARAMETERS),
            declare("camera_info_topic", "", "intrinsics of the colour images" + FROM_PARAMETERS),
            declare("odometry_topic", "", "nav_msgs/Odometry, for pose_source odometry" + FROM_PARAMETERS),
            declare(
                "pose_source",
                "",
                "where the camera's pose comes from" + FROM_PARAMETERS,
                ["", "tf", "odometry", "fixed"],
            ),
            declare("world_frame", "", "fixed frame of the scene graph, z up" + FROM_PARAMETERS),
            declare(
                "segmenter",
                "",
                "what finds instances; onnx: your own, see docs/models.md" + FROM_PARAMETERS,
                ["", "auto", "learned", "geometric", "onnx"],
            ),
            declare("segmenter_model", "", "ONNX file of the segmenter" + FROM_PARAMETERS),
            declare(
                "reasoner",
                "",
                "what finds relations and events" + FROM_PARAMETERS,
                ["", "auto", "learned", "geometric"],
            ),
            declare("reasoner_model", "", "ONNX file of the reasoner" + FROM_PARAMETERS),
            declare("autostart", "true", "the nodes configure and activate themselves", ["true", "false"]),
            declare("sim", "none", "camera and robot from a simulator", ["none", "mujoco", "gazebo"]),
            declare("scene", "demo", "sim:=mujoco: a scene of wm_sim, or path of a scene file"),
            declare("seed", "0", "sim:=mujoco: of the scene's colours, sizes, poses and noise"),
            declare("headless", "false", "sim:=gazebo: without its window", ["true", "false"]),
            declare("rviz", "false", "start RViz with wm's configuration", ["true", "false"]),
            OpaqueFunction(function=make_nodes),
        ]
    )
