# shellcheck shell=bash
# The environment that every wm process needs. Source it (bash): `source tools/env.sh`.
# The `wm` command and the make targets source it themselves; sourcing it twice changes nothing.
#
# What it sets, and keeps where you have set it yourself:
#   FASTDDS_DEFAULT_PROFILES_FILE   shared memory large enough for images (as large as /dev/shm allows); with Jazzy,
#                                   whose Fast DDS 2 reads that one, FASTRTPS_DEFAULT_PROFILES_FILE
#   ROS_DISTRO                      where ROS 2 comes from pip
#   RMW_IMPLEMENTATION              rmw_fastrtps_cpp
#   MUJOCO_GL                       egl, or osmesa where set-up found that EGL cannot start

_wm_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_wm_venv="$_wm_root/.venv"
_wm_install="$_wm_root/ros2_ws/install"

if [ ! -f "$_wm_venv/bin/activate" ] || [ ! -f "$_wm_install/local_setup.bash" ]; then
    echo "wm: $_wm_root is not set up yet (found no .venv or no ros2_ws/install); run: make -C $_wm_root setup" >&2
    unset _wm_root _wm_venv _wm_install
    # `return` where sourced, `exit` where somebody runs this file.
    # shellcheck disable=SC2317
    return 1 2>/dev/null || exit 1
fi

# colcon's and venv's scripts read unset variables: suspend `set -u` while they run.
case $- in *u*) _wm_nounset=1; set +u ;; *) _wm_nounset=0 ;; esac

# shellcheck disable=SC1091
[ "${VIRTUAL_ENV:-}" = "$_wm_venv" ] || source "$_wm_venv/bin/activate"

# Puts $2 in front of the colon-separated variable $1, unless it is in there.
_wm_prepend() {
    case ":${!1:-}:" in
        *":$2:"*) ;;
        ::) export "$1=$2" ;;
        *) export "$1=$2:${!1}" ;;
    esac
}

_wm_ros="$(cat "$_wm_venv/wm_ros" 2>/dev/null)"
if [ "$_wm_ros" = sourced ]; then
    # Built on a ROS 2 of this machine: setup.bash also sources that one, wherever this shell comes from.
    # shellcheck disable=SC1091
    source "$_wm_install/setup.bash"
else
    # ROS 2 from pip. Its wheels re-exec Python once to set LD_LIBRARY_PATH; with it set here they need not, and
    # every node is then exactly one process from its start.
    for _wm_dir in "$_wm_venv/lib" "$_wm_venv"/lib/python3*/site-packages/ros_*.libs; do
        [ -d "$_wm_dir" ] && _wm_prepend LD_LIBRARY_PATH "$_wm_dir"
    done
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    # As a sourced ROS does: programs read the distribution from it.
    case "$_wm_ros" in pip-*) export ROS_DISTRO="${_wm_ros#pip-}" ;; esac
    _wm_prepend AMENT_PREFIX_PATH "$_wm_venv"
    # shellcheck disable=SC1091
    source "$_wm_install/local_setup.bash"
fi

# Fast DDS 3 warns in every process where the older name is set, so only the one that is read is.
if [ "${ROS_DISTRO:-}" = jazzy ]; then _wm_name=FASTRTPS_DEFAULT_PROFILES_FILE; else _wm_name=FASTDDS_DEFAULT_PROFILES_FILE; fi
if [ -z "${!_wm_name:-}" ]; then
    _wm_shm_kib="$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 {print $2}')"
    if [ "${_wm_shm_kib:-0}" -lt 524288 ]; then _wm_dir=fastdds_small_shm.xml; else _wm_dir=fastdds.xml; fi
    export "$_wm_name=$_wm_root/ros2_ws/src/wm_bringup/config/$_wm_dir"
fi
export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
if [ -z "${MUJOCO_GL:-}" ]; then
    MUJOCO_GL="$(cat "$_wm_venv/wm_mujoco_gl" 2>/dev/null || echo egl)"
    export MUJOCO_GL
fi
export WM_ROOT="$_wm_root"

[ "$_wm_nounset" = 1 ] && set -u
unset -f _wm_prepend
unset _wm_root _wm_venv _wm_install _wm_ros _wm_dir _wm_name _wm_shm_kib _wm_nounset
:
