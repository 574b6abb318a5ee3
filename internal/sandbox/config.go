package sandbox

import (
	"errors"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	// StatusCollection is the collection of the Statusphere example app.
	StatusCollection syntax.NSID = "xyz.statusphere.status"
	// NoteCollection is a made-up collection with the usual kinds of values.
	NoteCollection syntax.NSID = "com.example.note"
	// UnknownCollection is a lexicon that no program has compiled in; some of
	// its record keys are words instead of TIDs.
	UnknownCollection syntax.NSID = "garden.example.plot.entry"
)

const (
	defaultHosts   = 4
	defaultRepos   = 40
	defaultLogSize = 1 << 16
	maxHosts       = 4096
	maxRepos       = 1 << 20
	maxPerRepo     = 100_000
	maxRecordBytes = 256 << 10
)

// Config says what the world holds. The zero value is a small world of four
// hosts and forty repos.
type Config struct {
	Seed        int64        // everything derives from it
	Hosts       int          // PDS hosts; default 4
	Repos       int          // default 40
	Collections []Collection // default: DefaultCollections
	LargeRepos  int          // the first repos that have over 1,000 records in the first collection
	Odd         float64      // share of records whose CID cannot be recomputed from their JSON
	Skew        bool         // most repos on the first hosts, as on the real network; default: evenly spread
	RateLimit   int          // requests a host allows in five minutes (getRepo: twice as many, apart); 0 sends no RateLimit headers
	LogSize     int          // requests kept in the log; default 65,536
}

// Collection says which repos have records of a collection, and how many.
type Collection struct {
	NSID        syntax.NSID
	Share       float64 // of repos that have it, 0 to 1
	MinRecords  int
	MaxRecords  int
	RecordBytes int // about this much JSON a record; 0 means 450, and for StatusCollection its true size
}

// DefaultCollections are one known app, one collection with all kinds of values,
// and one unknown lexicon.
func DefaultCollections() []Collection {
	return []Collection{
		{NSID: StatusCollection, Share: 0.7, MinRecords: 1, MaxRecords: 12},
		{NSID: NoteCollection, Share: 0.5, MinRecords: 1, MaxRecords: 20},
		{NSID: UnknownCollection, Share: 0.3, MinRecords: 1, MaxRecords: 8},
	}
}

// withDefaults fills in what is zero and refuses what makes no world.
func (c Config) withDefaults() (Config, error) {
	if c.Hosts == 0 {
		c.Hosts = defaultHosts
	}
	if c.Repos == 0 {
		c.Repos = defaultRepos
	}
	if c.Collections == nil {
		c.Collections = DefaultCollections()
	}
	if c.LogSize == 0 {
		c.LogSize = defaultLogSize
	}
	errs := []error{
		within("hosts", c.Hosts, 1, maxHosts),
		within("repos", c.Repos, 1, maxRepos),
		within("large repos", c.LargeRepos, 0, c.Repos),
		within("rate limit", c.RateLimit, 0, 1<<30),
		within("log size", c.LogSize, 1, 1<<24),
		share("odd", c.Odd),
	}
	if c.LargeRepos > 0 && len(c.Collections) == 0 {
		errs = append(errs, errors.New("large repos need a collection"))
	}
	seen := make(map[syntax.NSID]bool, len(c.Collections))
	for _, col := range c.Collections {
		if _, err := syntax.ParseNSID(col.NSID.String()); err != nil {
			errs = append(errs, fmt.Errorf("collection %q: %w", col.NSID, err))
		}
		if seen[col.NSID] {
			errs = append(errs, fmt.Errorf("collection %s is given twice", col.NSID))
		}
		seen[col.NSID] = true
		errs = append(errs,
			share(col.NSID.String(), col.Share),
			within(col.NSID.String()+" min records", col.MinRecords, 0, maxPerRepo),
			within(col.NSID.String()+" max records", col.MaxRecords, col.MinRecords, maxPerRepo),
			within(col.NSID.String()+" record bytes", col.RecordBytes, 0, maxRecordBytes))
	}
	return c, errors.Join(errs...)
}

func within(what string, n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("%s is %d, want %d to %d", what, n, low, high)
	}
	return nil
}

func share(what string, f float64) error {
	if f >= 0 && f <= 1 {
		return nil
	}
	return fmt.Errorf("share of %s is %g, want 0 to 1", what, f)
}
