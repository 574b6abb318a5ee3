package datadir

import "os"

// openFlags are none: the comparison after opening does.
const openFlags = 0

// Owner is not known: access here is decided by the list of the directory.
func Owner(os.FileInfo) (uid int, ok bool) { return 0, false }

// GiveTo gives an open file the owner of another: here it has that of the directory.
func GiveTo(*os.File, os.FileInfo) error { return nil }

// sync makes what was renamed in the directory durable: here it is by itself.
func (d *Dir) sync() error { return nil }
