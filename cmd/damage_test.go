package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/internal/sandbox"
)

// filled is a data directory with the records of a world.
func filled(t *testing.T, world *sandbox.World) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	s.log.wait(t, `msg="job ended"`)
	if code := s.end(); code != exitOK {
		t.Fatalf("ended with %d: %s", code, s.log)
	}
	return dir
}

// spoil changes a byte of a record in the database.
func spoil(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, service.DatabaseFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(data, []byte("createdAt"))
	if at < 0 {
		t.Fatal("no record in the file")
	}
	data = bytes.ReplaceAll(data, []byte("createdAt"), []byte("createdEt"))
	write(t, path, string(data))
}

// endsLoudly wants the process to end with the code and one clear line.
func (c *child) endsLoudly(code int, want string) {
	c.t.Helper()
	if got := c.wait(); got != code {
		c.t.Errorf("ended with %d, want %d", got, code)
	}
	log := c.log.String()
	if last := log[strings.LastIndex(strings.TrimSpace(log), "\n")+1:]; !strings.HasPrefix(last, "appview: ") || !strings.Contains(last, want) {
		c.t.Errorf("the last line does not say %q:\n%s", want, log)
	}
	for _, trace := range []string{"goroutine ", "panic", ".go:"} {
		if strings.Contains(log, trace) {
			c.t.Errorf("%q in the log:\n%s", trace, log)
		}
	}
}

func TestDamageThatARequestMeetsEndsTheServer(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	dir := filled(t, world)
	spoil(t, dir)
	c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts")
	c.log.wait(t, "msg=serving")
	if code, records, _ := runs(t, nil, "records", "export", "--data-dir", dir); code != exitError || strings.Contains(records, "createdEt") {
		t.Errorf("the export ended with %d and printed %s", code, records)
	}
	c.endsLoudly(exitDamaged, "restore a backup")
	want(t, exitDamaged, "the database is damaged", nil, "check", "--data-dir", dir)
}

func TestDataDirectoryRemovedEndsTheServer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("open files stay where they are")
	}
	world := newWorld(t)
	dir := filled(t, world)
	c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts")
	c.log.wait(t, "msg=serving")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	c.endsLoudly(exitError, "was removed, or moved away")
}
