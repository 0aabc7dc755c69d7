#!/bin/sh
# Runs a command of the README on a bare Debian 12: a new chroot that has Node and npm and nothing else, with what is committed
# in it. What the machine of a developer happens to have is missing there, as it is at a new user's.
#
#   sh scripts/bare.sh                              the README's two commands
#   sh scripts/bare.sh 'npm test -- test/unit'      any other, run by sh in the checkout
#
# Needs root, debootstrap (installed where apt-get is) and about 4 GB in $TMPDIR (/var/tmp). The network is this machine's.
# ~/.cache/sonde is shared with the chroot, and so are archives of packages; packages that are installed are not.
# Ended by SIGINT or SIGTERM it leaves nothing behind; by SIGKILL its folder, but no process and no mount.
# Exit status: that of the command; 69 where there cannot be such a chroot.
set -eu

SUITE=bookworm
UNAVAILABLE=69

command=${1:-'npm start -- --once && npm test'}
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sonde
own=$cache/bare
say() { echo "bare: $*" >&2; }
unavailable() { say "$*"; exit "$UNAVAILABLE"; }

[ "$(id -u)" -eq 0 ] || unavailable 'a chroot needs root'
git -c safe.directory="$PWD" rev-parse --verify -q HEAD >/dev/null || unavailable 'this is no checkout with a commit in it'
unshare --mount --pid --fork true 2>/dev/null || unavailable 'namespaces cannot be made here (CAP_SYS_ADMIN)'
if ! command -v debootstrap >/dev/null; then
  say 'installing debootstrap ...'
  { apt-get -qq -o DPkg::Lock::Timeout=300 -y install --no-install-recommends debootstrap ||
    { apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=300 -y install --no-install-recommends debootstrap; }; } >/dev/null 2>&1 ||
    unavailable 'debootstrap is missing and could not be installed'
fi

root='' child='' status=0
# Mounts are made in a namespace of their own and end with its processes, so none is here when the folder goes. Should one be
# here all the same it is not removed: what is behind it is not ours.
clean() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    # The first process of the PID namespace, whose end is everybody's in it; unshare ends when all of them have.
    kill -KILL "$(cat "$root.pid" 2>/dev/null || echo "$child")" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  [ -n "$root" ] || return 0
  if grep -q " $root[/ ]" /proc/self/mountinfo; then say "something is mounted in $root: it stays"; else rm -rf --one-file-system "$root"; fi
  rm -f "$root.pid"
}
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a script of sh, with arguments, in mount and PID namespaces of its own. In the background, so that signals are heard
# meanwhile; what the shell does to such a process (no standard input, no SIGINT) is undone. It dies when this script is killed.
exec 3<&0
apart() {
  setpriv --pdeathsig=KILL env --default-signal=INT,QUIT unshare --mount --pid --fork --kill-child --propagation=private \
    sh -euc "read -r pid rest </proc/self/stat; echo \"\$pid\" >\"$root.pid\"; mount -t proc proc /proc; $1" sh <&3 3<&- &
  child=$!
  status=0
  wait "$child" || status=$?
  child=''
  return "$status"
}

mkdir -p "$own/archives" "$own/npm"
root=$(mktemp -d "${TMPDIR:-/var/tmp}/sonde-bare.XXXXXX")
chmod 755 "$root"

base=$own/$SUITE.tar
if [ ! -f "$base" ]; then
  say "making the base system (debootstrap; once, kept in $base) ..."
  # Where apt has this suite from; empty: debootstrap's own default.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $SUITE" 'Component: main' 'Identifier: Packages' 2>/dev/null | head -n 1)
  apart "debootstrap --variant=minbase $SUITE '$root' $mirror >'$own/debootstrap.log' 2>&1" || {
    tail -n 5 "$own/debootstrap.log" >&2
    unavailable 'debootstrap failed (see above)'
  }
  rm -f "$root"/var/cache/apt/archives/*.deb
  tar -C "$root" -cf "$base.$$" . && mv "$base.$$" "$base"
else
  tar -C "$root" -xf "$base"
fi

# take PATH...: copies of this machine's files, at the same places.
take() {
  for path; do
    [ -e "$path" ] || continue
    mkdir -p "$root$(dirname "$path")"
    # A link of the base system would lead elsewhere.
    [ -d "$path" ] || rm -f "$root$path"
    cp -RLT --preserve=mode "$path" "$root$path" 2>/dev/null || cp -RT --preserve=mode "$path" "$root$path"
  done
}

# Node and npm as this machine has them, but for those of node_modules.
PATH=$(echo "$PATH" | tr ':' '\n' | grep -v '/node_modules/' | paste -s -d : -)
node=$(node -p process.execPath)
npm=$(readlink -f "$(command -v npm)")
mkdir -p "$root/usr/local/lib/node_modules" "$root/usr/local/etc"
cp -L "$node" "$root/usr/local/bin/node"
cp -R "$(dirname "$(dirname "$npm")")" "$root/usr/local/lib/node_modules/npm"
for name in npm npx; do ln -s "../lib/node_modules/npm/bin/$name-cli.js" "$root/usr/local/bin/$name"; done

# How this machine reaches its registries: names, certificates, proxies, mirrors.
take /etc/resolv.conf /etc/hosts /etc/ssl/certs /usr/local/share/ca-certificates
# shellcheck disable=SC1091
if [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = "$SUITE" ]; then
  rm -rf "$root/etc/apt/sources.list"
  mkdir -p "$root/etc/apt/sources.list.d"
  take /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/auth.conf /etc/apt/auth.conf.d /etc/apt/trusted.gpg.d /etc/apt/keyrings
fi
# Not its hooks, which run programs that are not there.
apt-config dump | grep '^Acquire::' | grep -Ev '^Acquire::(IndexTargets|CompressionTypes|Changelogs|GzipIndexes)' >"$root/etc/apt/apt.conf.d/90machine" || true
at_home() { if [ -e "$1" ]; then mkdir -p "$(dirname "$2")" && cp -L --preserve=mode "$1" "$2"; fi; }
at_home "$(npm config get userconfig)" "$root/root/.npmrc"
at_home "$(npm config get globalconfig)" "$root/usr/local/etc/npmrc"
at_home "$HOME/.m2/settings.xml" "$root/root/.m2/settings.xml"
take "$(npm config get cafile)"

set --
for name in $(env | sed -nE 's/^(CI|[A-Za-z]+_(proxy|PROXY)|NODE_EXTRA_CA_CERTS|SSL_CERT_(FILE|DIR)|npm_config_[a-z_]*registry|NPM_CONFIG_REGISTRY)=.*/\1/p'); do
  eval "value=\$$name"
  set -- "$@" "$name=$value"
  case $name in *CERT*) take "$value" ;; esac
done

[ -z "$(git -c safe.directory="$PWD" status --porcelain)" ] || say 'what is not committed is not in it'
mkdir -p "$root/root/sonde" "$root/root/.cache/sonde" "$root/root/.npm" "$root/var/cache/apt/archives"
git -c safe.directory="$PWD" archive HEAD | tar -C "$root/root/sonde" -xf -
chroot "$root" /usr/local/bin/node /usr/local/bin/npm --version >/dev/null || unavailable "the Node of this machine ($node) does not run without its other packages"

# apt and npm lock their folders: of several at a time the first shares, the others fetch for themselves.
exec 4>"$own/lock"
share=''
if flock -n 4; then share="mount --bind '$own/archives' '$root/var/cache/apt/archives'; mount --bind '$own/npm' '$root/root/.npm';"; fi

printf '%s\n' "$command" >"$root/root/command"
env=''
for each; do env="$env '$(printf %s "$each" | sed "s/'/'\\\\''/g")'"; done
say "running: $command"
# A mount of its own, since `ip netns exec` remounts /. The shell stays, as the first process, to wait for those that lose their parents.
apart "
  mount --bind '$root' '$root'
  mount -t proc proc '$root/proc'
  mount --rbind /sys '$root/sys'
  mount --rbind /dev '$root/dev'
  mount -t tmpfs tmpfs '$root/run'
  mount -t tmpfs tmpfs '$root/tmp'
  mount --bind '$cache' '$root/root/.cache/sonde'
  $share
  status=0
  chroot '$root' env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 $env \
    sh -c 'cd /root/sonde && . /root/command' 4>&- || status=\$?
  exit \$status
"
