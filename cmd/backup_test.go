package cmd

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store/storetest"
)

// truthOf is what an index of a collection should serve: uri → cid.
func truthOf(world *sandbox.World) map[string]string {
	truth := map[string]string{}
	for uri, rec := range world.Truth(sandbox.StatusCollection) {
		truth[uri] = rec.CID
	}
	return truth
}

// TestBackupsOfAJobAtFullSpeedGoOnWhereTheyWere takes backups all through a job, and
// restores one from its middle.
func TestBackupsOfAJobAtFullSpeedGoOnWhereTheyWere(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	world := sandboxtest.Start(t, sandbox.Config{
		Seed: 71, Repos: 1500, Hosts: 8,
		Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 0, MaxRecords: 4}},
	})
	dir := t.TempDir()
	s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	middle := ""
	for n := 0; ; n++ {
		before := newestJob(t, dir)
		path := filepath.Join(dir, fmt.Sprintf("backup-%d.db", n))
		want(t, exitOK, "which is consistent", nil, "backup", path, "--data-dir", dir)
		if before.Status != "running" {
			break
		}
		if before.ProcessedRepos != nil && newestJob(t, dir).Status == "running" {
			middle = path
		}
	}
	whole := counted(t, dir)
	s.end()
	if middle == "" {
		t.Fatal("no backup was taken in the middle of the job")
	}
	restored := t.TempDir()
	if err := os.Rename(middle, filepath.Join(restored, service.DatabaseFile)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(restored, service.KeyFile), read(t, filepath.Join(dir, service.KeyFile)))
	s = serveIn(t, world, restored, "--collection", sandbox.StatusCollection.String())
	want(t, exitOK, "completed", nil, "backfill", "watch", newestJob(t, restored).ID, "--data-dir", restored)
	if got := exported(t, restored); !maps.Equal(got, truthOf(world)) {
		t.Errorf("%d records served, the world has %d, or some differ", len(got), len(truthOf(world)))
	}
	if got := counted(t, restored); !maps.Equal(got, whole) {
		t.Errorf("counters after the restore: %v\nof the job that went on:  %v", got, whole)
	}
	s.end()
	want(t, exitOK, "is consistent", nil, "check", filepath.Join(restored, service.DatabaseFile))
}

func TestBackupDoesNotReplaceWhatIsInUse(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	live := filepath.Join(dir, service.DatabaseFile)
	want(t, exitError, "is the database of a server that runs: name another file", nil, "backup", live, "--data-dir", dir)
	out := filepath.Join(t.TempDir(), "backup.db")
	write(t, out, "an older one")
	want(t, exitOK, "wrote "+out, nil, "backup", out, "--data-dir", dir)
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup has mode %v, %v", info.Mode(), err)
	}
	s.end()
	want(t, exitOK, "is consistent", nil, "check", live)
	want(t, exitError, "no server at", nil, "backup", out, "--url", "http://127.0.0.1:1", "--key", testKey)
	want(t, exitOK, "is consistent", nil, "check", out)
}

func TestBackupThatBreaksOffOrIsNoneIsNotKept(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(http.ResponseWriter){
		"the backup broke off after 5 B of 100 B": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("begun"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"is it appview?": func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"no valid meta page": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "5")
			_, _ = w.Write([]byte("other"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
			defer other.Close()
			out := filepath.Join(t.TempDir(), "backup.db")
			write(t, out, "an older one")
			code, stdout, stderr := runs(t, nil, "backup", out, "--url", other.URL, "--key", testKey)
			if code == exitOK || stdout != "" || !strings.Contains(stderr, name) {
				t.Errorf("ended with %d: %s%s", code, stdout, stderr)
			}
			if left, err := filepath.Glob(out + "*"); err != nil || len(left) != 1 || read(t, out) != "an older one" {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestCompactGivesBackWhatWasDeleted(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	dir := filled(t, world)
	s := serveIn(t, world, dir)
	want(t, exitLocked, "stop it", nil, "compact", "--data-dir", dir)
	s.end()
	path := filepath.Join(dir, service.DatabaseFile)
	// A process that is killed while it compacts has changed nothing.
	killed := 0
	for tries := 0; killed < 2 && tries < 20; tries++ {
		c := startChild(t, nil, "compact", "--data-dir", dir)
		until(t, "the copy is begun, or done", func() bool {
			_, err := os.Stat(path + ".compact")
			return err == nil || strings.Contains(c.log.String(), "given back")
		})
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if c.wait() != exitOK {
			killed++
		}
		want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
	}
	if killed == 0 {
		t.Error("no compaction was killed before it was done")
	}
	want(t, exitOK, "given back", nil, "compact", "--data-dir", dir)
	want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
	s = serveIn(t, world, dir)
	if got := exported(t, dir); !maps.Equal(got, truthOf(world)) {
		t.Errorf("%d records served, the world has %d, or some differ", len(got), len(truthOf(world)))
	}
	s.end()
	want(t, exitError, "there is no database", nil, "compact", "--data-dir", t.TempDir())
}

func TestOnlyFilesAreReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{os.DevNull, dir} {
		filled := false
		err := replaceFile(path, func(*os.File) error { filled = true; return nil })
		if err == nil || !strings.Contains(err.Error(), path+" is there, and is no file that could be replaced") || filled {
			t.Errorf("%s: %v", path, err)
		}
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("%s is %v, %v", os.DevNull, info, err)
	}
}
