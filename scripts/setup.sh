#!/bin/sh
# Makes a checkout ready to run: npm packages, a Node of the right version, Debian packages. It looks first, and is done at
# once where nothing is missing. Which Debian packages there are is said by scripts/programs.tsv.
# Usage: sh scripts/setup.sh demo|test|bench
set -eu

NODE_MAJOR=24
TAB=$(printf '\t')

cd "$(dirname "$0")/.."
say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

case "${1:-}" in
demo) need='demo' ;;
test | bench) need="demo $1" ;;
*)
  echo 'usage: sh scripts/setup.sh demo|test|bench' >&2
  exit 2
  ;;
esac

# System administration tools may lie outside an ordinary user's PATH.
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# is_needed DEMO,TEST: whether one of them is what this was called for.
is_needed() {
  for each in $need; do case ",$1," in *",$each,"*) return 0 ;; esac; done
  return 1
}

# Sets `missing` (package names) and `reasons` (the same with what for).
look_for_packages() {
  missing='' reasons=''
  while IFS="$TAB" read -r who program package why; do
    is_needed "$who" || continue
    has "$program" && continue
    case "$missing " in *" $package "*) continue ;; esac
    missing="$missing $package" why=${why% (not called yet)}
    reasons="$reasons${reasons:+, }$package ($why)"
  done <scripts/programs.tsv
}

lock_sum() { if [ -f package-lock.json ]; then cksum <package-lock.json; else echo none; fi; }

# Whether node_modules is what package-lock.json asks for. The time tells for an install by hand, the sum for ours.
packages_current() {
  [ -f node_modules/.package-lock.json ] || return 1
  [ package-lock.json -nt node_modules/.package-lock.json ] || return 0
  [ "$(cat node_modules/.setup-sum 2>/dev/null)" = "$(lock_sum)" ]
}

# Scripts of npm see node_modules/.bin before the system's folders; npm itself must not run on a Node that it replaces.
clean_path() { echo "$PATH" | tr ':' '\n' | grep -v '/node_modules/' | paste -s -d : -; }
node_major() { PATH="$PWD/node_modules/.bin:$(clean_path)" node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/'; }
node_current() {
  major=$(node_major)
  [ -n "$major" ] && [ "$major" -ge "$NODE_MAJOR" ]
}

links_current() {
  for name in sonde trace; do [ -L "node_modules/.bin/$name" ] || return 1; done
}

install_node_modules() {
  has npm || fail 'npm is needed to install the packages of package.json; install Node.js 20 or later with npm.'
  say 'installing the npm packages of package.json (libraries, and the tools that build and test) ...'
  # `ci` wants a lock file that lists every platform's variant of a package; where it does not, `install` takes the locked
  # versions all the same, and leaves the lock file alone.
  PATH=$(clean_path) npm ci --no-audit --no-fund --loglevel=silent >/dev/null 2>&1 ||
    PATH=$(clean_path) npm install --no-save --no-audit --no-fund --loglevel=error >&2 ||
    fail 'npm install failed (see above); it needs the npm registry. Try again, or run `npm install` by hand.'
  lock_sum >node_modules/.setup-sum
}

# The package `node` fetches its binary in an install script, which newer npm versions do not run unasked.
install_node() {
  [ -f node_modules/node/installArchSpecificPackage.js ] || fail "Node $NODE_MAJOR or later is needed; this one is $(node --version)."
  say "fetching Node $NODE_MAJOR for the scripts of this project (the system has $(PATH=$(clean_path) node --version)) ..."
  (cd node_modules/node && PATH=$(clean_path) node installArchSpecificPackage.js >&2) || fail "Node $NODE_MAJOR could not be fetched from the npm registry (see above). Try again, or install Node $NODE_MAJOR."
  mkdir -p node_modules/.bin
  ln -sf ../node/bin/node node_modules/.bin/node
  node_current || fail "Node $NODE_MAJOR does not run on this machine; install Node $NODE_MAJOR by other means."
}

install_packages() {
  if ! has apt-get; then
    fail "missing: $reasons. There is no apt-get here: install the equivalents of$missing with this system's package manager, then try again."
  fi
  if [ "$(id -u)" -ne 0 ]; then
    fail "missing: $reasons. Run as root: apt-get install --no-install-recommends$missing"
  fi
  say "installing Debian packages: $reasons ..."
  # Lists may be absent or old: they are fetched only when the first attempt says so.
  # shellcheck disable=SC2086 # a list of names
  apt_install $missing 2>/dev/null || {
    apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || true
    apt_install $missing || fail "apt-get could not install$missing (see above)."
  }
  look_for_packages
  [ -z "$missing" ] || fail "still missing after their installation: $reasons. Look at: apt-get install --reinstall$missing"
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2
}

everything() { packages_current && links_current && node_current; }

look_for_packages
[ -z "$missing" ] || install_packages
if ! everything; then
  # Two terminals may start at the same moment: the second waits, then finds all of it done.
  if has flock; then
    exec 9<package.json
    flock 9
  fi
  packages_current || install_node_modules
  node_current || install_node
  # So that `npx sonde` and `npx trace` find this checkout's own commands.
  for name in sonde trace; do ln -sf "../../bin/$name.js" "node_modules/.bin/$name"; done
fi
