#!/usr/bin/env bash
# Installs the pinned real parts into a cache outside the checkout and prints
# the folder. Progress goes to standard error. Exit code 75: they cannot be
# installed at all, because there is no registry or no tool to ask one with.
#
# One folder for each state of the pins. It is made under another name and
# renamed when complete: what stopped half-way is never taken for finished.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

cannot=75
pins=(package.json package-lock.json versions.env install.sh)

say() { echo "e2e parts: $*" >&2; }

for tool in node npm go git cc c++ make python3; do
	command -v "$tool" >/dev/null || { say "$tool is needed and was not found"; exit $cannot; }
done

root=${XDG_CACHE_HOME:-$HOME/.cache}/appview-e2e
key=$(cd "$here" && { cat "${pins[@]}" && uname -sm; } | git hash-object --stdin)
parts=$root/${key:0:16}
if [[ -d $parts ]]; then
	touch "$parts"
	echo "$parts"
	exit 0
fi

mkdir -p "$root"
# Left by runs that were killed; a day is longer than any install takes. And
# what no run has used for a month.
find "$root" -maxdepth 1 -name 'unfinished.*' -mmin +1440 -exec rm -rf {} +
find "$root" -maxdepth 1 -regex '.*/[0-9a-f]*' -mtime +30 -exec rm -rf {} +
new=$(mktemp -d "$root/unfinished.XXXXXX")
trap 'rm -rf "$new"' EXIT
began=$SECONDS
say "installing into $parts (takes some minutes, once)"

# try runs one step. When it fails and its registry cannot be reached either,
# that is the reason.
try() {
	local reachable=$1
	shift
	if "$@" >"$new/step.log" 2>&1; then return; fi
	tail -n 40 "$new/step.log" >&2
	say "$1 ... did not succeed"
	if ! "$reachable" >/dev/null 2>&1; then exit $cannot; fi
	exit 1
}
npm_reachable() { (cd "$here" && npm ping --fetch-retries=0 --fetch-timeout=10000); }
go_reachable() { (cd "$new" && GOFLAGS=-mod=mod go list -m "github.com/bluesky-social/indigo@$INDIGO"); }

# shellcheck source=versions.env
source "$here/versions.env"

say "npm packages"
cp "$here/package.json" "$here/package-lock.json" "$new/"
# No scripts: most only fetch prebuilt binaries from places that are not the registry.
try npm_reachable npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund --loglevel=error

# The PDS wants Node 22: from npm where it has it for this machine, else the one here.
node=$(find "$new/node_modules" -maxdepth 3 -path '*/node-*/bin/node' | head -n 1)
if [[ -n $node ]]; then
	ln -s "${node#"$new"/}" "$new/node"
else
	node=$(node -p 'process.execPath')
	ln -s "$node" "$new/node"
fi
if ! "$node" -e 'process.exit(process.versions.node.split(".")[0] >= 22 ? 0 : 1)'; then
	say "Node 22 or newer is needed; $node is $("$node" --version)"
	exit 1
fi
nodedir=$(dirname "$(dirname "$node")")

say "better-sqlite3, compiled for $("$node" --version)"
PATH=$(dirname "$node"):$PATH npm_config_nodedir=$nodedir \
	try npm_reachable npm rebuild better-sqlite3 --prefix "$new" --build-from-source --loglevel=error
"$node" -e 'new (require(process.argv[1]))(":memory:").close()' "$new/node_modules/better-sqlite3"

say "relay and collection directory, indigo $INDIGO"
# sqlite, which the relay keeps its tables in, is C.
GOBIN=$new CGO_ENABLED=1 GOFLAGS=-trimpath try go_reachable \
	go install "github.com/bluesky-social/indigo/cmd/relay@$INDIGO" "github.com/bluesky-social/indigo/cmd/collectiondir@$INDIGO"

rm -f "$new/step.log"
# -T: if another run was faster, fail instead of moving into its folder.
mv -T "$new" "$parts" 2>/dev/null || [[ -d $parts ]]
say "installed in $((SECONDS - began)) s"
echo "$parts"
