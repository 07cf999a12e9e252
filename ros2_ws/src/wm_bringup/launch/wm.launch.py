"""Starts perception and imagination, their lifecycle manager, and optionally a simulator and RViz.

    ros2 launch wm_bringup wm.launch.py                         # your camera, with the default topics
    ros2 launch wm_bringup wm.launch.py sim:=mujoco rviz:=true
    ros2 launch wm_bringup wm.launch.py sim:=gazebo
    ros2 launch wm_bringup wm.launch.py color_topic:=/head/rgb/image_rect depth_topic:=/head/depth/image_rect \
        camera_info_topic:=/head/rgb/camera_info params_file:=/path/to/my_robot.yaml
    ros2 launch wm_bringup wm.launch.py --show-args

Parameters come from the packages' defaults, params_file, and the arguments given here; later ones have precedence.
A lifecycle manager activates the nodes and watches them. A node that dies ends the launch with status 1, unless
respawn:=true starts it again.
"""

import os
from pathlib import Path

import launch.logging
import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription
from wm_bringup.run.params_file import complaints, value_of
from wm_core.frames import prefixed

# Arguments that set parameters of the nodes, by the parameters' names. Those of MODELS are in the group pipeline.
CAMERA_TOPICS = ("color_topic", "depth_topic", "camera_info_topic")
IMAGES = ("color_transport", "depth_transport", "rectify", "depth_scale", "depth_scale_guess")
POSE = ("odometry_topic", "pose_source", "world_frame", "camera_frame", "frame_prefix")
MODELS = ("segmenter", "segmenter_model", "reasoner", "reasoner_model")
FROM_PARAMETERS = "; empty: as in the parameters files"
BOOLEAN = ["true", "false"]

# Topics in rviz/wm.rviz that are remapped into the namespace.
RVIZ_TOPICS = ("markers", "overlay", "instances", "imagined/image", "imagined/points", "imagined/markers")


def share(package, *parts):
    return str(Path(get_package_share_directory(package), *parts))


def is_true(text):
    if text.lower() not in ("true", "false", "1", "0"):
        raise RuntimeError(f"got {text!r}, expected true or false")
    return text.lower() in ("true", "1")


def typed(name, text):
    """A parameter's value in the type that its node declares. Plain text would be read as YAML, where off is false."""
    if name != "depth_scale":
        return ParameterValue(text, value_type=str)
    try:
        return float(text)
    except ValueError:
        raise RuntimeError(f"depth_scale: got {text!r}, expected meters per unit, e.g. 0.001") from None


def need(argument, *packages):
    """Raise an error of one line where a package that an argument requires is not installed."""
    missing = []
    for package in packages:
        try:
            get_package_share_directory(package)
        except LookupError:  # the base class of PackageNotFoundError
            missing.append(package)
    if missing:
        distribution = os.environ.get("ROS_DISTRO", "jazzy")
        names = " ".join(f"ros-{distribution}-{package.replace('_', '-')}" for package in missing)
        raise RuntimeError(f"{argument} needs {', '.join(missing)}; run: sudo apt install {names}")


class Graph:
    """The arguments of one launch, and the actions that they require.

    Attributes:
        context: the launch context, which has the arguments.
        namespace: namespace of wm's nodes, without slashes at its ends.
        sim: none, mujoco or gazebo.
        use_sim_time: whether the nodes read /clock.
        manager: wm, nav2 or none.
        autostart: whether the nodes are activated at once.
        params_file: path of the user's parameters file, or empty.
        overrides: values of arguments that follow from the simulator, by the argument's name.
    """

    def __init__(self, context):
        self.context = context
        self.namespace = self.text("namespace").strip("/")
        self.sim = self.text("sim")
        sim_time = self.text("use_sim_time")
        self.use_sim_time = self.sim != "none" if sim_time == "auto" else is_true(sim_time)
        self.manager = self.text("lifecycle_manager")
        self.autostart = is_true(self.text("autostart"))
        self.params_file = self.text("params_file")
        if self.params_file and not Path(self.params_file).is_file():
            raise RuntimeError(f"params_file: {self.params_file} is not a file")
        self.overrides = self.simulated_topics()

    def text(self, name):
        return LaunchConfiguration(name).perform(self.context)

    def full_name(self, node, namespace=None):
        return f"/{self.namespace if namespace is None else namespace}/{node}".replace("//", "/")

    def simulated_topics(self):
        """Topics of a simulated camera in a namespace, and a camera frame that its messages do not name."""
        space = self.text("sim_namespace").strip("/")
        found = {}
        if self.sim == "mujoco" and space:
            names = ("color/image_raw", "depth/image_raw", "color/camera_info")
            found = {key: f"/{space}/camera/{name}" for key, name in zip(CAMERA_TOPICS, names, strict=True)}
        if self.sim == "gazebo" and self.text("frame_prefix"):
            found["camera_frame"] = "camera_color_optical_frame"  # the images' own frame_id has no prefix
        return found

    def given(self, *names):
        """Those of the parameters that an argument or an override gives, as texts by parameter name."""
        values = {name: self.text(name) or self.overrides.get(name, "") for name in names}
        return {(f"pipeline.{key}" if key in MODELS else key): value for key, value in values.items() if value}

    def parameters(self, *names):
        """The same values in the types that the nodes declare."""
        return {name: typed(name, text) for name, text in self.given(*names).items()}

    def process(self, package, executable, required=True, **keywords):
        """A node in a process of its own. The end of a required one ends the launch, or starts it again (respawn)."""
        respawn = is_true(self.text("respawn"))
        if required and respawn:
            keywords |= {"respawn": True, "respawn_delay": float(self.text("respawn_delay"))}
        elif required:
            keywords["on_exit"] = ends_the_launch
        return Node(package=package, executable=executable, output="screen", emulate_tty=True, **keywords)

    def wm_process(self, package, executable, name, files, parameters, **keywords):
        log_level = self.text("log_level")
        return self.process(
            package,
            executable,
            namespace=self.namespace,
            parameters=[*files, *([self.params_file] if self.params_file else []), parameters],
            **({"name": name} if name else {}),
            **({"ros_arguments": ["--log-level", log_level]} if log_level else {}),
            **keywords,
        )

    def nodes(self):
        common = {"use_sim_time": self.use_sim_time, "autostart": self.autostart and self.manager == "none"}
        perception = self.parameters(*CAMERA_TOPICS, *IMAGES, *POSE, *MODELS)
        imagination = self.parameters(*CAMERA_TOPICS, *IMAGES)
        files = {name: share(f"wm_{name}", "config", f"{name}.yaml") for name in ("perception", "imagination")}
        if is_true(self.text("container")):
            # A name would rename both nodes. Each node ignores the parameters of the other.
            both = {**common, **perception}
            return [self.wm_process("wm_bringup", "container", "", [*files.values()], both)]
        return [
            self.wm_process(
                "wm_perception", "perception_node", "perception", [files["perception"]], {**common, **perception}
            ),
            self.wm_process(
                "wm_imagination", "imagination_node", "imagination", [files["imagination"]], {**common, **imagination}
            ),
        ]

    def lifecycle_manager(self):
        parameters = {"use_sim_time": self.use_sim_time, "autostart": self.autostart}
        name = "lifecycle_manager"
        if self.manager == "wm":
            defaults = share("wm_bringup", "config", f"{name}.yaml")
            return [self.wm_process("wm_bringup", name, name, [defaults], parameters)]
        if self.manager == "nav2":
            need("lifecycle_manager:=nav2", "nav2_lifecycle_manager")
            # wm's nodes have no bonds, so nav2's manager configures and activates them but does not watch them.
            parameters |= {"node_names": ["perception", "imagination"], "bond_timeout": 0.0}
            return [self.wm_process("nav2_lifecycle_manager", name, name, [], parameters)]
        return []

    def simulator(self):
        if self.sim == "mujoco":
            return [self.mujoco()]
        return self.gazebo() if self.sim == "gazebo" else []

    def mujoco(self):
        # The root namespace gives the topics /camera/..., as a camera driver has them.
        space = self.text("sim_namespace").strip("/")
        given = {"scene": self.text("scene"), **self.given("frame_prefix")}
        if self.text("sim_clock") != "publish":
            given["clock"] = self.text("sim_clock")
        if self.namespace != "wm":
            given["lead_topic"] = self.full_name("scene_graph")
        given = {"seed": int(self.text("seed")), **{name: typed(name, text) for name, text in given.items()}}
        return self.process(
            "wm_sim",
            "sim_camera_node",
            name="sim_camera_node",
            parameters=[*([self.params_file] if self.params_file else []), given],
            **({"namespace": space} if space else {}),
        )

    def gazebo(self):
        need("sim:=gazebo", "ros_gz_sim", "ros_gz_bridge", "tf2_ros")
        world = share("wm_sim", "worlds", "tabletop.sdf")
        # -r: run at once; -s: no window. The camera then needs a renderer that works without a display.
        flags = "-r -s --headless-rendering" if is_true(self.text("headless")) else "-r"
        transforms = yaml.safe_load(Path(share("wm_sim", "config", "gz_static_tf.yaml")).read_text(encoding="utf-8"))
        return [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(share("ros_gz_sim", "launch", "gz_sim.launch.py")),
                launch_arguments={"gz_args": f"{flags} {world}", "on_exit_shutdown": "true"}.items(),
            ),
            self.process(
                "ros_gz_bridge",
                "parameter_bridge",
                name="gz_bridge",
                parameters=[{"config_file": share("wm_sim", "config", "gz_bridge.yaml"), "use_sim_time": True}],
            ),
            *(static_transform(row, self.text("frame_prefix")) for row in transforms),
            LogInfo(msg="Gazebo: the world is wm_sim/worlds/tabletop.sdf; the argument `scene` is for sim:=mujoco"),
        ]

    def value(self, parameter, default):
        """The value that a parameter of perception will have; ``default``: no argument and no file gives it."""
        given = self.given(parameter).get(parameter)
        if given is None and self.params_file:
            given = value_of(Path(self.params_file), self.full_name("perception"), parameter)
        return default if given is None else given

    def rviz(self):
        if not is_true(self.text("rviz")):
            return []
        need("rviz:=true", "rviz2")
        remappings = [(f"/wm/{topic}", self.full_name(topic)) for topic in RVIZ_TOPICS]
        remappings.append(("/camera/color/image_raw", str(self.value("color_topic", "/camera/color/image_raw"))))
        fixed_frame = prefixed(str(self.value("frame_prefix", "")), str(self.value("world_frame", "map")))
        return [
            Node(
                package="rviz2",
                executable="rviz2",
                name="rviz2",
                namespace=self.namespace if self.namespace != "wm" else "",
                arguments=["-d", share("wm_bringup", "rviz", "wm.rviz"), "-f", fixed_frame],
                parameters=[{"use_sim_time": self.use_sim_time}],
                remappings=[pair for pair in remappings if pair[0] != pair[1]],
            )
        ]

    def warnings(self):
        """One line for each name in params_file that no node reads."""
        if not self.params_file:
            return []
        nodes = {self.full_name(name): name for name in ("perception", "imagination")}
        if self.manager != "none":
            nodes[self.full_name("lifecycle_manager")] = "lifecycle_manager" if self.manager == "wm" else ""
        if self.sim == "mujoco":
            nodes[self.full_name("sim_camera_node", self.text("sim_namespace").strip("/"))] = "sim_camera_node"
        return list(complaints(Path(self.params_file), nodes))


def ends_the_launch(event, context):
    """End the launch after the end of a required process: with status 0 after a simulation's end, else with 1."""
    if context.is_shutdown:
        return None
    if event.returncode == 0 and "sim_camera_node" in event.process_name:
        return [Shutdown(reason="the simulation has come to its end")]
    # launch ends with status 0 after a Shutdown and with 1 after an exception; both shut the other processes down.
    raise RuntimeError(
        f"{event.process_name} ended by itself (exit code {event.returncode}); its output is above; "
        "respawn:=true would start it again"
    )


def static_transform(row, prefix):
    keys = ("--x", "--y", "--z", "--qx", "--qy", "--qz", "--qw")
    values = [*row["translation"], *row["rotation"]]
    numbers = [text for key, value in zip(keys, values, strict=True) for text in (key, str(value))]
    parent, child = prefixed(prefix, row["parent"]), prefixed(prefix, row["child"])
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name=f"static_{row['child']}",
        arguments=[*numbers, "--frame-id", parent, "--child-frame-id", child],
        parameters=[{"use_sim_time": True}],
    )


def make_nodes(context):
    graph = Graph(context)
    for line in graph.warnings():
        launch.logging.get_logger("wm").warning(line)
    return [*graph.nodes(), *graph.lifecycle_manager(), *graph.simulator(), *graph.rviz()]


def generate_launch_description():
    def declare(name, default, description, choices=None):
        return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)

    def from_files(name, description, choices=None):
        return declare(name, "", description + FROM_PARAMETERS, None if choices is None else ["", *choices])

    return LaunchDescription(
        [
            declare("namespace", "wm", "of wm's nodes, and so of all their topics and services"),
            declare("frame_prefix", "", "put before every frame that wm names, e.g. robot1/"),
            declare("use_sim_time", "auto", "read /clock; auto: with a simulator", ["auto", *BOOLEAN]),
            declare("params_file", "", "YAML with parameters of wm's nodes; read after the packages' defaults"),
            from_files("color_topic", "color images"),
            from_files("depth_topic", "depth images, registered to color"),
            from_files("camera_info_topic", "intrinsics of the color images"),
            from_files("color_transport", "of the color images", ["raw", "compressed"]),
            from_files("depth_transport", "of the depth images", ["raw", "compressed", "compressedDepth"]),
            from_files("rectify", "take the lens's distortion out of raw images", ["auto", "on", "off"]),
            from_files("depth_scale", "meters per unit of depth, e.g. 0.001; 0: by the encoding"),
            from_files("depth_scale_guess", "where depth looks to be in another unit", ["warn", "apply", "off"]),
            from_files("odometry_topic", "nav_msgs/Odometry, for pose_source odometry"),
            from_files("pose_source", "where the camera's pose comes from", ["tf", "odometry", "fixed"]),
            from_files("world_frame", "fixed frame of the scene graph, z up"),
            from_files("camera_frame", "optical frame, where the images' frame_id is not it"),
            from_files(
                "segmenter",
                "what finds instances; onnx: your own, see docs/models.md",
                ["auto", "learned", "geometric", "onnx"],
            ),
            from_files("segmenter_model", "ONNX file of the segmenter"),
            from_files("reasoner", "what finds relations and events", ["auto", "learned", "geometric"]),
            from_files("reasoner_model", "ONNX file of the reasoner"),
            declare("container", "false", "perception and imagination in one process", BOOLEAN),
            declare("lifecycle_manager", "wm", "what brings the nodes up and watches them", ["wm", "nav2", "none"]),
            declare("autostart", "true", "bring the nodes up; false: when the lifecycle manager is asked to", BOOLEAN),
            declare("respawn", "false", "start a node that died again, instead of ending the launch", BOOLEAN),
            declare("respawn_delay", "2.0", "before it is started again [s]"),
            declare("log_level", "", "of wm's nodes; empty: info", ["", "debug", "info", "warn", "error", "fatal"]),
            declare("sim", "none", "camera and robot from a simulator", ["none", "mujoco", "gazebo"]),
            declare("scene", "demo", "sim:=mujoco: a scene of wm_sim, or path of a scene file"),
            declare("seed", "0", "sim:=mujoco: of the scene's colors, sizes, poses and noise"),
            declare("sim_namespace", "", "sim:=mujoco: of the simulated camera and its topics"),
            declare("sim_clock", "publish", "sim:=mujoco: make /clock, or keep to another's", ["publish", "follow"]),
            declare("headless", "false", "sim:=gazebo: without its window", BOOLEAN),
            declare("rviz", "false", "start RViz with wm's configuration", BOOLEAN),
            OpaqueFunction(function=make_nodes),
        ]
    )
