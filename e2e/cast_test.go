//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// The collections of the network. PDSes know the lexicon of posts only.
const (
	statuses = "xyz.statusphere.status"
	notes    = "com.example.e2e.note"
	posts    = "app.bsky.feed.post"
)

const (
	largeRepoRecords = 1203 // thirteen pages, the last of them short
	crowd            = 12   // accounts beside the named ones
	atOnce           = 4    // accounts that are made at the same time
)

// cast is the accounts of the network, named after what becomes of them.
type cast struct {
	largeRepo   *account // more records than fit on a few pages
	odd         *account // values and record keys of every shape
	silent      *account // no record at all
	changing    *account // records created, updated, deleted
	deactivated *account
	takenDown   *account
	deleted     *account
	moving      *account // from one PDS to the other
	emptied     *account
	tombstoned  *account
	crowd       []*account
}

// seed makes the accounts and their records.
func (n *network) seed(ctx context.Context) (*cast, error) {
	p1, p2 := n.pdses[0], n.pdses[1]
	c := &cast{crowd: make([]*account, crowd)}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	add := func(to **account, p *pds, name string, fill func(context.Context, *account) error) {
		g.Go(func() error {
			a, err := p.createAccount(ctx, name)
			if err != nil {
				return err
			}
			*to = a
			return fill(ctx, a)
		})
	}
	add(&c.largeRepo, p1, "large", counted(largeRepoRecords, 3, 0))
	add(&c.odd, p2, "odd", oddRecords)
	add(&c.silent, p1, "silent", counted(0, 0, 0))
	add(&c.changing, p1, "changing", counted(7, 4, 2))
	add(&c.deactivated, p1, "deactivated", counted(3, 2, 1))
	add(&c.takenDown, p2, "taken-down", counted(3, 2, 1))
	add(&c.deleted, p1, "deleted", counted(3, 2, 1))
	add(&c.moving, p1, "moving", counted(150, 2, 1))
	add(&c.emptied, p2, "emptied", counted(105, 2, 1))
	add(&c.tombstoned, p2, "tombstoned", counted(3, 2, 1))
	for i := range c.crowd {
		// Some have only statuses, some only notes, some both, some neither;
		// among the counts are full pages and one record more.
		fill := counted((i%2)*(i*20), (i/2%2)*(i*10), i%3)
		add(&c.crowd[i], n.pdses[i%len(n.pdses)], "crowd"+strconv.Itoa(i), fill)
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("seed the network: %w", err)
	}
	return c, nil
}

// counted fills a repo with so many statuses, notes and posts.
func counted(nStatuses, nNotes, nPosts int) func(context.Context, *account) error {
	return func(ctx context.Context, a *account) error {
		var writes []write
		for i := range nStatuses {
			writes = append(writes, createWrite(statuses, "", status(i)))
		}
		for i := range nNotes {
			writes = append(writes, createWrite(notes, "", note(i)))
		}
		for i := range nPosts {
			writes = append(writes, createWrite(posts, "", post(i)))
		}
		return a.apply(ctx, writes...)
	}
}

// oddRecords holds what is easily lost on the way from CBOR to JSON and back.
func oddRecords(ctx context.Context, a *account) error {
	blob, err := a.uploadBlob(ctx, []byte("\x89PNG\r\n\x1a\n of "+a.name))
	if err != nil {
		return fmt.Errorf("upload blob for %s: %w", a.name, err)
	}
	const cid = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
	values := map[string]map[string]any{
		"self":                   {"blob": blob, "list": []any{blob, []any{}, map[string]any{}}},
		"a.b-c_d:e~f":            {"link": map[string]any{"$link": cid}, "links": []any{map[string]any{"$link": cid}}},
		"Abc":                    {"bytes": map[string]any{"$bytes": "AAECAwQF/v8"}, "none": map[string]any{"$bytes": ""}},
		"abc":                    {"max": 1<<53 - 1, "min": -(1<<53 - 1), "zero": 0, "yes": true, "no": false, "null": nil},
		strings.Repeat("k", 512): {"html": `<a href="?a=1&b=2">'x'</a>`, "escapes": "\"\\/\b\f\n\r\t\u2028\u2029\u0001"},
		"3jui7kd54zh2y":          {"text": "Grüße 👩‍👩‍👧‍👦 \u202eרtl 日本語 e\u0301", "": "empty key", "ключ": "", "z": 1, "aa": 2, "b": 3},
		"deep":                   {"deep": nested(40)},
		"large":                  {"text": strings.Repeat("large ", 20_000)},
	}
	var writes []write
	for rkey, v := range values {
		v["$type"] = notes
		writes = append(writes, createWrite(notes, rkey, v))
	}
	writes = append(writes, createWrite(statuses, "only", status(0)), createWrite(posts, "", post(0)))
	return a.apply(ctx, writes...)
}

func nested(depth int) any {
	if depth == 0 {
		return "bottom"
	}
	return map[string]any{"in": []any{nested(depth - 1)}}
}

func status(i int) map[string]any {
	faces := []string{"👍", "🦋", "😢", "🧑‍💻"}
	return map[string]any{"$type": statuses, "status": faces[i%len(faces)], "createdAt": stamp(i)}
}

func note(i int) map[string]any {
	return map[string]any{
		"$type": notes, "title": "note " + strconv.Itoa(i), "createdAt": stamp(i), "rank": i,
		"tags": []any{"a", "b"}, "place": map[string]any{"name": "Zürich <here> & there", "known": true},
	}
}

func post(i int) map[string]any {
	return map[string]any{"$type": posts, "text": "post " + strconv.Itoa(i), "createdAt": stamp(i), "langs": []any{"en"}}
}

func stamp(i int) string {
	return fmt.Sprintf("2026-01-02T%02d:%02d:%02d.000Z", i/3600%24, i/60%60, i%60)
}

// change does to each account what it is named after. A repo that comes to
// hold a collection for the first time is among the changes.
func (n *network) change(ctx context.Context, c *cast) error {
	own, err := c.changing.pds.records(ctx, c.changing.did, statuses)
	if err != nil {
		return err
	}
	key := func(r listed) string { return r.URI[strings.LastIndex(r.URI, "/")+1:] }
	last := len(own) - 1
	changed := status(4711)
	changed["edited"] = true
	if err := c.changing.apply(ctx,
		updateWrite(statuses, key(own[0]), changed), updateWrite(statuses, key(own[last]), status(99)),
		deleteWrite(statuses, key(own[1])), deleteWrite(statuses, key(own[last-1])),
		createWrite(statuses, "", status(1000)), createWrite(statuses, "0first", status(1001)), createWrite(statuses, "zlast", status(1002)),
	); err != nil {
		return err
	}
	if err := c.silent.apply(ctx, createWrite(statuses, "", status(1)), createWrite(notes, "", note(1))); err != nil {
		return err
	}
	if err := n.empty(ctx, c.emptied); err != nil {
		return err
	}
	if err := c.deactivated.deactivate(ctx); err != nil {
		return err
	}
	if err := c.takenDown.takeDown(ctx, true); err != nil {
		return err
	}
	if err := c.deleted.remove(ctx); err != nil {
		return err
	}
	if err := c.moving.move(ctx, n.pdses[1], n.plc, n.rotation); err != nil {
		return err
	}
	// After the move, so that the new place and not only the new name is read.
	if err := c.moving.apply(ctx, createWrite(statuses, "", status(2000))); err != nil {
		return err
	}
	return plcOperation(ctx, n.plc, n.rotation, c.tombstoned.did, map[string]any{"type": "plc_tombstone"})
}

// changeBack lets the accounts return that can.
func (n *network) changeBack(ctx context.Context, c *cast) error {
	if err := c.deactivated.activate(ctx); err != nil {
		return err
	}
	if err := c.takenDown.takeDown(ctx, false); err != nil {
		return err
	}
	return c.emptied.apply(ctx, createWrite(statuses, "again", status(3)))
}

// empty deletes every record of a repo.
func (n *network) empty(ctx context.Context, a *account) error {
	var writes []write
	for _, collection := range []string{statuses, notes, posts} {
		records, err := a.pds.records(ctx, a.did, collection)
		if err != nil {
			return err
		}
		for _, r := range records {
			writes = append(writes, deleteWrite(collection, r.URI[strings.LastIndex(r.URI, "/")+1:]))
		}
	}
	return a.apply(ctx, writes...)
}
