package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"appview/internal/datadir"
)

// ownMode is the mode of the files in a data directory.
const ownMode = 0o600

// restrictFiles sets the server's own files back to its user alone: what mounts a
// directory into a container may have opened them to a group. Where that cannot be, it
// warns.
func restrictFiles(ctx context.Context, dir *datadir.Dir, log *slog.Logger) {
	if runtime.GOOS == "windows" {
		return // the list of the directory decides who may read them
	}
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		log.WarnContext(ctx, "files of the data directory may be open to others", "err", err)
		return
	}
	for _, e := range entries {
		name := e.Name()
		if name != KeyFile && name != DatabaseFile && !strings.HasPrefix(name, DatabaseFile+".format") {
			continue
		}
		if err := restrictFile(dir, name); err != nil {
			log.WarnContext(ctx, "a file of the data directory may be open to others: it should belong to the user of the server, with mode 0600",
				"file", filepath.Join(dir.Path(), name), "err", err)
		}
	}
}

func restrictFile(dir *datadir.Dir, name string) (err error) {
	f, err := dir.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	exact, err := datadir.SetMode(f, ownMode)
	if err == nil && !exact {
		err = fmt.Errorf("the file system keeps no mode")
	}
	return err
}
