# What has to be on a Jetson before the daemon can be installed; part of tools/install-on-jetson.
#
# In: $root, $python, $cuda, $settings, $state and the arguments. Out: one line for each thing
# looked at, all before anything is changed; $jetpack (4, 6 or empty); $pins, a requirements file;
# $named, the network that the settings name.
# shellcheck shell=bash
# shellcheck disable=SC2154  # the variables of tools/install-on-jetson

# Environment (110 MB with Python 3.6, 240 MB with 3.10), PyCUDA's build, model and engine.
NEEDED_KB=1000000
# The least memory and swap together that an engine is built in without a warning: a Nano has 4 GB
# and 2 GB of compressed swap. A judgement, not a measurement.
ENOUGH_MEMORY_KB=3500000

missing=0
jetpack=''
pins=''
named=''
asked=no

found() { say "ok       $1: $2"; }
note() { say "note     $1: $2"; }
lack() { say "MISSING  $1: $2"; missing=$((missing + 1)); }

check_all() {
    check_root
    check_jetson
    check_python
    check_programs
    check_cuda
    check_disk /opt
    check_disk /var/lib
    check_memory
    check_power
    check_model
    [ "$missing" = 0 ] && return
    if [ "$dry_run" = no ]; then
        die "what is MISSING above ($missing) is needed first; nothing was changed"
    fi
    say "Without --dry-run this would end here, because of what is MISSING ($missing)."
}

check_root() {
    if [ "$(id -u)" = 0 ]; then found root yes; else lack root "run this with sudo"; fi
}

check_jetson() {
    local line='' wanted="JetPack 4.6.1 or a newer 4.6 (L4T R32.7), or JetPack 6 (L4T R36)"
    if [ ! -r "$root/etc/nv_tegra_release" ]; then
        lack Jetson "no /etc/nv_tegra_release, so this is none; run this on the rover's computer"
        return
    fi
    read -r line <"$root/etc/nv_tegra_release" || true
    if [[ ! $line =~ ^#\ R([0-9]+)\ \(release\),\ REVISION:\ ([0-9]+)\.([0-9]+) ]]; then
        lack Jetson "/etc/nv_tegra_release does not begin with a release; needed: $wanted"
        return
    fi
    local release="${BASH_REMATCH[1]}" revision="${BASH_REMATCH[2]}"
    if [ "$release" = 32 ] && [ "$revision" -ge 7 ]; then
        jetpack=4  # R32.6, JetPack 4.6 itself, has TensorRT 8.0
    elif [ "$release" = 36 ]; then
        jetpack=6
    else
        lack Jetson "L4T R$release.$revision; needed: $wanted"
        return
    fi
    found Jetson "L4T R$release.$revision, JetPack $jetpack"
}

check_python() {
    local version=''
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || true
    pins=$here/tools/lib/jetson/python$version.txt
    if [ -f "$pins" ]; then
        found Python "$version"
    else
        lack Python "$python is ${version:-not there}; JetPack 4.6 has 3.6, JetPack 6 has 3.10"
        pins=$here/tools/lib/jetson/python3.6.txt
        return
    fi
    python_has python3-venv "import ensurepip, venv"
    python_has python3-dev "import os, sysconfig as s; open(s.get_paths()['include'] + '/Python.h')"
    python_has python3-libnvinfer "import tensorrt; print('TensorRT', tensorrt.__version__)"
}

# python_has PACKAGE CODE: the Debian package is there if the code runs; shows what it prints.
python_has() {
    local told
    if told=$("$python" -c "$2" 2>/dev/null); then
        found "$1" "${told:-yes}"
    else
        lack "$1" "apt-get install $1"
    fi
}

check_programs() {
    local pair
    for pair in g++:g++ runuser:util-linux systemctl:systemd systemd-sysusers:systemd \
        systemd-tmpfiles:systemd; do
        if command -v "${pair%:*}" >/dev/null; then
            found "${pair%:*}" yes
        else
            lack "${pair%:*}" "apt-get install ${pair#*:}"
        fi
    done
}

check_cuda() {
    local file mend="apt-get install cuda-toolkit-10-2"
    [ "$jetpack" != 6 ] || mend="apt-get install nvidia-jetpack"
    for file in bin/nvcc include/cuda.h include/cudaProfiler.h include/curand.h; do
        if [ ! -e "$cuda/$file" ]; then
            lack CUDA "no $cuda/$file; $mend"
            return
        fi
    done
    found CUDA "$cuda"
}

check_disk() {
    local folder=$root$1 free_kb
    [ -d "$folder" ] || folder=$root/
    free_kb=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
    if [ "$free_kb" -ge "$NEEDED_KB" ]; then
        found "disk of $1" "$((free_kb / 1000)) MB free"
    else
        lack "disk of $1" "$((free_kb / 1000)) MB free; make it $((NEEDED_KB / 1000)) MB"
    fi
}

check_memory() {
    local total_kb
    total_kb=$(awk '/^(MemTotal|SwapTotal):/ { sum += $2 } END { print sum + 0 }' \
        "$root/proc/meminfo")
    if [ "$total_kb" -ge "$ENOUGH_MEMORY_KB" ]; then
        found memory "$((total_kb / 1000)) MB with swap"
    else
        note memory "$((total_kb / 1000)) MB with swap is little to build an engine in; if it is \
killed, add swap: fallocate -l 4G /swap; chmod 600 /swap; mkswap /swap; swapon /swap"
    fi
}

check_power() {
    local told mode
    if ! told=$(nvpmodel -q 2>/dev/null); then
        if [ -n "$power_mode" ]; then
            lack "power mode" "nvpmodel -q does not answer; leave --power-mode out"
        else
            note "power mode" "unknown, nvpmodel -q does not answer"
        fi
        return
    fi
    mode=$(awk '/^[0-9]+$/ { print; exit }' <<<"$told")
    if [ "$jetpack" != 4 ] || [ "$mode" = 0 ] || [ "$power_mode" = 0 ]; then
        found "power mode" "${mode:-unknown}"
    else
        note "power mode" "${mode:-unknown}; where a Nano is fed 5 V and 4 A through the barrel \
jack, --power-mode 0 (MAXN) makes it faster"
    fi
}

# The settings, or what they will be once they are installed.
config_file() {
    if [ -f "$settings/config.yaml" ]; then
        printf '%s\n' "$settings/config.yaml"
    else
        printf '%s\n' "$here/systemd/config.yaml"
    fi
}

# The network that the settings name, as far as that can be told without a reader of YAML.
model_of_settings() {
    local path
    path=$(sed -nE "s/^([\"']?)model\1[[:space:]]*:([[:space:]]+|\$)//; T; s/(^|[[:space:]]+)#.*//
        s/[[:space:]]+\$//; p; q" "$(config_file)")
    case $path in '' | null | Null | NULL | '~') path=/var/lib/jetson-cluster/model.onnx ;; esac
    path=${path#[\"\']}
    path=${path%[\"\']}
    case $path in
        /*) path=$root$path ;;
        *) path=$settings/$path ;;
    esac
    printf '%s\n' "$path"
}

# The Python that the daemon will have, with the package of this checkout.
ask_python() {
    local variables=(LANG=C.UTF-8 "PYTHONPATH=$here")
    [ "$jetpack" != 4 ] || variables+=(OPENBLAS_CORETYPE=ARMV8)  # or numpy dies on a Nano
    env "${variables[@]}" "$venv/bin/python" -B "$@"
}

# ask_package SAY: sets $named, and calls SAY for all that would keep the daemon from starting with
# what is given. Once is enough: nothing that it looks at is changed before files are put in place.
ask_package() {
    [ "$asked" = no ] || return 0
    local told kind text
    told=$(ask_python "$here/tools/lib/jetson/ask_package.py" \
        "$root" "$state" "$(config_file)" "$model" "$codebook") ||
        die "the settings, model and codebook could not be looked into, the reason is above"
    while read -r kind text; do
        case $kind in
            named) named=$text ;;
            *) "$1" "$kind" "$text" ;;
        esac
    done <<<"$told"
    asked=yes
}

check_model() {
    named=$(model_of_settings)
    # Without the libraries of an earlier installation it is asked once they are installed.
    if ask_python -c "import numpy, yaml" 2>/dev/null; then ask_package lack; fi
    if [ -n "$model" ] && [ "$named" != "$state/model.onnx" ]; then
        lack model "$settings/config.yaml names $named, where --model would not put it; copy it \
there and leave --model out"
    elif [ -n "$model" ] || [ -f "$named" ]; then
        found model "${model:-$named}"
    else
        note model "none; without --model only the daemon is installed, and started later"
    fi
}
