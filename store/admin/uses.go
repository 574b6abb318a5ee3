package admin

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"appview/store/kv"
)

// SaveEvery is how often it is written when keys were used last. A write for each
// request would cost more than most requests.
const SaveEvery = time.Minute

// uses are the last uses of API keys that are not in the file yet. There are no
// more of them than there are keys.
type uses struct {
	mu sync.Mutex
	at map[uuid.UUID]time.Time
}

// latest is the last use of a key, in the file or not.
func (u *uses) latest(k APIKey) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at, ok := u.at[k.ID]; ok {
		return at
	}
	return k.LastUsedAt
}

// UseAPIKey notes that a key was used. It is written a minute later, or when the
// store is closed: a crash loses that much.
func (a *Admin) UseAPIKey(id uuid.UUID, at time.Time) {
	a.uses.mu.Lock()
	defer a.uses.mu.Unlock()
	if a.uses.at == nil {
		a.uses.at = map[uuid.UUID]time.Time{}
	}
	a.uses.at[id] = at.UTC().Truncate(time.Second)
}

// SaveUses writes the uses of all keys in one change.
func (a *Admin) SaveUses(ctx context.Context) error {
	at := a.uses.unsaved()
	if len(at) == 0 {
		return nil
	}
	err := a.db.Do(ctx, usesChange(at))
	if err == nil {
		a.uses.saved(at)
	}
	return err
}

// FlushUses are the changes that write the uses that are not in the file yet, as the
// writer's last act.
func (a *Admin) FlushUses() []kv.Change {
	at := a.uses.unsaved()
	if len(at) == 0 {
		return nil
	}
	c := usesChange(at)
	c.Done = func(err error) {
		if err != nil {
			a.db.Log().Warn("when api keys were used last could not be written", "err", err)
		}
	}
	return []kv.Change{c}
}

func (u *uses) unsaved() map[uuid.UUID]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.at)
}

// saved forgets the uses that are in the file, unless there was another since.
func (u *uses) saved(at map[uuid.UUID]time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.at, func(id uuid.UUID, now time.Time) bool { return now.Equal(at[id]) })
}

func usesChange(at map[uuid.UUID]time.Time) kv.Change {
	return kv.Change{Op: "note uses of api keys", Urgent: true, Apply: func(tx *kv.Tx) error {
		list, err := storedKeys(tx)
		if err != nil {
			return err
		}
		for _, k := range list {
			used, ok := at[k.ID]
			if !ok || used.Equal(k.LastUsedAt) {
				continue
			}
			k.LastUsedAt = used
			if err := apiKeys.Put(apiKeys.Bucket(tx), k.hash, k.APIKey); err != nil {
				return fmt.Errorf("note use: %w", err)
			}
		}
		return nil
	}}
}
