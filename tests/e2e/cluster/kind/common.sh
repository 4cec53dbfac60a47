# Read by the scripts beside it: where things are, and which container engine there is.
# shellcheck shell=bash disable=SC2034

kind_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$kind_dir/../../../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/moleport
cluster=${MOLEPORT_E2E_CLUSTER:-moleport-e2e}
kubeconfig=${KUBECONFIG:-$cache/$cluster.kubeconfig}
kubernetes_version=v1.34.4
mkdir -p "$cache/bin"

# What was built here comes after what the machine has: a kind, kubectl or helm of yours is used.
export PATH=$PATH:$cache/bin

# Docker if its daemon answers, otherwise Podman; both work for kind.
if [ -z "${engine:-}" ]; then
  if docker info >/dev/null 2>&1; then engine=docker; else engine=podman; fi
fi
export KIND_EXPERIMENTAL_PROVIDER=$engine

# What a container may open and start: without CAP_SYS_RESOURCE not more than the engine itself,
# which has less than the shell that starts it.
lower() { [ "$1" = unlimited ] || [ "$1" -gt "$2" ] && echo "$2" || echo "$1"; }
nofile=$(lower "$(ulimit -Hn)" 65536)
nproc=$(lower "$(ulimit -Hu)" 30000)

# `podman build` reads neither the default limits nor the network of containers.conf.
image_build() {
  "$engine" build -q --network=host --ulimit "nofile=$nofile:$nofile" --ulimit "nproc=$nproc:$nproc" "$@"
}

# Whether the stock images can be had: "stock", or "own" if every image is to be made here.
# MOLEPORT_E2E_IMAGES decides it without a look.
images() {
  if [ -n "${MOLEPORT_E2E_IMAGES:-}" ]; then
    echo "$MOLEPORT_E2E_IMAGES"
  elif [ "$(curl -s -o /dev/null -m 10 -w '%{http_code}' https://registry-1.docker.io/v2/)" = 401 ]; then
    echo stock
  else
    echo own
  fi
}

need_go() {
  command -v go >/dev/null || { echo "$1: Go 1.25 or newer is missing" >&2; exit 1; }
}

# The hash of some files and words: what is built carries it, so that it is built once.
stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

# The Debian mirror that this machine's own apt uses.
mirror() {
  # shellcheck disable=SC2016 # apt fills these in
  apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$1 == release { print $2; exit }'
}

# debian NAME PACKAGE...: makes $cache/debian/NAME.tar, a Debian 13 root with these packages,
# unless it is there.
debian() {
  local name=$1 packages root
  shift
  packages=$(IFS=, && echo "$*")
  mkdir -p "$cache/debian/packages"
  if [ "$(cat "$cache/debian/$name.list" 2>/dev/null)" = "$packages" ]; then
    return
  fi
  echo "Debian 13 for $name ..."
  root=$(mktemp -d "$cache/debian/root.XXXXXX")
  debootstrap --variant=minbase --cache-dir="$cache/debian/packages" --include="$packages" \
    trixie "$root" "$(mirror)" >"$cache/debian/$name.log"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* \
    "$root"/usr/share/man/* "$root"/usr/share/locale/* "${root:?}"/dev/*
  tar -C "$root" --numeric-owner -cf "$cache/debian/$name.tar" .
  rm -rf "$root"
  echo "$packages" >"$cache/debian/$name.list"
}

# Where the Go module cache has a module that the addons are built from.
module() {
  (cd "$kind_dir/addons" && go mod download "$1" && go list -m -f '{{.Dir}}' "$1")
}

image_has_stamp() { # NAME STAMP
  [ "$("$engine" image inspect --format '{{.Config.Labels.stamp}}' "$1" 2>/dev/null)" = "$2" ]
}

# load_image NAME...: copies images of the engine onto every node.
load_image() {
  local archive
  archive=$(mktemp --suffix=.tar)
  case $engine in
  podman) podman save -q -m --format docker-archive -o "$archive" "$@" ;;
  *) docker save -o "$archive" "$@" ;;
  esac
  kind load image-archive --name "$cluster" "$archive"
  rm -f "$archive"
}
