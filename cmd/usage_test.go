package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/store"
)

func TestMistakesInTheCallExitWithTwo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		environ []string
		args    string
	}{
		{`unknown command "srve", perhaps serve: see appview --help`, nil, "srve"},
		{`unknown command "index": see appview --help`, nil, "index"},
		{`unknown command "crate", perhaps create: see appview backfill --help`, nil, "backfill crate"},
		{`unknown flag: --colection: see appview serve --help`, nil, "serve --colection a.b.c"},
		{`appview serve takes no arguments: see appview serve --help`, nil, "serve now"},
		{`appview backfill cancel takes ID: see appview backfill cancel --help`, nil, "backfill cancel"},
		{`appview backfill show takes [ID]: see appview backfill show --help`, nil, "backfill show a b"},
		{`appview keys create takes NAME: see`, nil, "keys create"},
		{`--max-jobs is "x", it must be a whole number: see appview serve --help`, nil, "serve --max-jobs x"},
		{`--host-rps is "fast", it must be a number: see`, nil, "serve --host-rps fast"},
		{`--refresh is "1d", it must be a duration such as 90s, 30m or 24h: see`, nil, "serve --refresh 1d"},
		{`--max-jobs is 0`, nil, "serve --max-jobs 0"},
		{`--max-account-bytes is 2000, it must be at least 2097152`, nil, "serve --max-account-bytes 2000"},
		{`APPVIEW_MAX_ACCOUNT_BYTES: --max-account-bytes is "1GiB", it must be a whole number`, []string{"APPVIEW_MAX_ACCOUNT_BYTES=1GiB"}, "serve"},
		{`--host-rps is 0`, nil, "serve --host-rps 0"},
		{`--refresh is 30s, it must be 0 or at least 1m0s`, nil, "serve --refresh 30s"},
		{`--refresh is -1h0m0s`, nil, "serve --refresh -1h"},
		{`--public-url: "appview.example.com" cannot be where clients reach the server`, nil, "serve --public-url appview.example.com"},
		{`--public-url: "https://example.com//a" cannot be`, []string{"APPVIEW_PUBLIC_URL=https://example.com//a"}, "serve"},
		{`--allow-host: "https://example.com" is no host name`, nil, "serve --allow-host https://example.com"},
		{`--allow-host: "*.example.com" is no host name`, []string{"APPVIEW_ALLOW_HOST=a.example,*.example.com"}, "serve"},
		{`--cors-origin: "*" is no origin of a page`, nil, "serve --cors-origin *"},
		{`"https://admin.example.com/" is not how browsers write the origin of a page: write https://admin.example.com`, nil, "serve --cors-origin https://admin.example.com/"},
		{`say with --permission what the key may do`, nil, "keys create somebody"},
		{`--expires "soon" is neither a time`, nil, "keys create somebody --permission * --expires soon"},
		{`say with --records what becomes of its records`, nil, "collections remove a.b.c"},
		{`--records is "some", it must be keep or delete`, nil, "collections remove a.b.c --records some"},
		{`collection "statusphere" is no valid NSID`, nil, "serve --collection statusphere"},
		{`log level "loud" is none of`, nil, "serve --log-level loud"},
		{`log format "xml" is neither`, nil, "serve --log-format xml"},
		{`appview: relay: parse host: refused_address: "http://127.0.0.1:1": not a public address: --allow-private-hosts allows it`, nil, "serve --relay http://127.0.0.1:1"},
		{`appview: plc: parse host: bad_endpoint: "plc.directory": neither https nor http: give it as https://NAME;`, nil, "serve --plc plc.directory"},
		{`name what to list: --collection, --did, or both`, nil, "records list"},
		{`--url "nowhere" is no URL`, nil, "stats --url nowhere"},
		{`names another machine: give its key`, nil, "stats --url https://appview.example.com"},
		{`is not did/collection/rkey`, nil, "records get at://did:web:a.example"},
		{`name what to delete: --collection, --did, or both`, nil, "records delete --yes"},
		{`repos is -1`, nil, "demo --exit --repos -1"},
		{`unknown variable APPVIEW_LISTN`, []string{"APPVIEW_LISTN=127.0.0.1:1"}, "version"},
		{`unknown variable APPVIEW_EXIT`, []string{"APPVIEW_EXIT=1"}, "version"},
		{`APPVIEW_MAX_JOBS: --max-jobs is "many", it must be a whole number`, []string{"APPVIEW_MAX_JOBS=many"}, "serve"},
		{`APPVIEW_ADMIN_KEY: the admin key must begin with hv_`, []string{"APPVIEW_ADMIN_KEY=secret-secret-secret-secret"}, "serve"},
		{`APPVIEW_ADMIN_KEY: the admin key has 8 characters`, []string{"APPVIEW_ADMIN_KEY=hv_short"}, "serve"},
	} {
		t.Run(c.text, func(t *testing.T) {
			t.Parallel()
			args, dir := strings.Fields(c.args), t.TempDir()
			if args[0] == "serve" {
				args = append(args, "--data-dir="+dir, "--listen=127.0.0.1:0")
			}
			want(t, exitUsage, c.text, c.environ, args...)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("the data directory holds %v (%v)", left, err)
			}
		})
	}
}

func TestMistakesInAnAddressExitWithTwo(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--listen", "--metrics-listen"} {
		for _, address := range []string{"3000", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:no such port", "::1:3000"} {
			dir := t.TempDir()
			args := []string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0"}
			want(t, exitUsage, flag+" is \""+address+"\", it must be an address and a port, such as 127.0.0.1:3000: ", nil, append(args, flag, address)...)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%s %s left %v (%v)", flag, address, left, err)
			}
		}
	}
}

// TestNoAddressIsNotEveryAddress: net.Listen would take any port of every network that
// the machine is on.
func TestNoAddressIsNotEveryAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want(t, exitUsage, "appview: --listen is empty, it must be an address and a port, such as 127.0.0.1:3000\n", nil,
		"serve", "--data-dir", dir, "--listen", "")
}

func TestCommandsOnADirectoryWithoutADatabaseSayWhichItIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, command := range []string{"check", "compact", "keys rescue"} {
		want(t, exitError, "appview: there is no database "+filepath.Join(dir, service.DatabaseFile)+": say with --data-dir where it is\n", nil,
			append(strings.Fields(command), "--data-dir", dir)...)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestVariablesOfPlatformsAndOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	environ := []string{
		"APPVIEW_PORT=tcp://10.0.0.1:3000", "APPVIEW_PORT_3000_TCP_ADDR=10.0.0.1", "APPVIEW_SERVICE_HOST=10.0.0.1", "OTHER=1",
		"APPVIEW_LISTEN=127.0.0.1:1", "APPVIEW_RELAY=", "APPVIEW_URL=http://127.0.0.1:1", "APPVIEW_KEY=x", "APPVIEW_ADMIN_KEY=x",
	}
	want(t, exitOK, "appview ", environ, "version")
}

func TestFlagBeatsVariable(t *testing.T) {
	t.Parallel()
	environ := []string{"APPVIEW_DATA_DIR=/nowhere/from-variable"}
	want(t, exitError, "/nowhere/from-variable/appview.db", environ, "check")
	want(t, exitError, "/nowhere/from-flag/appview.db", environ, "check", "--data-dir", "/nowhere/from-flag")
}

func TestEverySettingOfServeHasItsVariable(t *testing.T) {
	t.Parallel()
	_, help, _ := runs(t, nil, "serve", "--help")
	for _, flag := range []string{
		"listen", "data-dir", "relay", "plc", "collection", "allow-private-hosts", "max-jobs", "max-hosts", "repos-per-host", "host-rps", "refresh",
		"log-level", "log-format",
	} {
		if !strings.Contains(help, "--"+flag+" ") || !strings.Contains(help, "["+envName(flag)+"]") {
			t.Errorf("--%s and %s are not in:\n%s", flag, envName(flag), help)
		}
	}
}

func TestErrorsHaveTheirExitCode(t *testing.T) {
	t.Parallel()
	for err, code := range map[error]int{
		nil:                                   exitOK,
		errors.New("x"):                       exitError,
		service.Usagef("x"):                   exitUsage,
		fmt.Errorf("x: %w", store.ErrLocked):  exitLocked,
		fmt.Errorf("x: %w", store.ErrNewer):   exitDamaged,
		fmt.Errorf("x: %w", store.ErrDamaged): exitDamaged,
	} {
		if got := exitCode(err); got != code {
			t.Errorf("%v: %d, want %d", err, got, code)
		}
		if !strings.Contains(rootHelp, fmt.Sprintf("\n  %-3d  ", code)) {
			t.Errorf("--help does not explain %d", code)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"", "--help", "help serve", "backfill", "records --help", "--version"} {
		if code, stdout, _ := runs(t, nil, strings.Fields(args)...); code != exitOK || stdout == "" {
			t.Errorf("%q: %d %q", args, code, stdout)
		}
	}
}

func TestURLWithAZoneIsOneOfAServer(t *testing.T) {
	t.Parallel()
	const url = "http://[fe80::1%25eth0.7]:65535"
	if c, err := (&program{}).newClient(clientOptions{url: url, key: testKey}); err != nil || c.base != url {
		t.Errorf("no command finds it: %v", err)
	}
}
