package network

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// TestHostileCARs has one way of being wrong a row. Every row starts from a
// sound repo of two layers: node(low) key node(high).
func TestHostileCARs(t *testing.T) {
	t.Parallel()
	const collection = "com.example.thing"
	low := keys(collection, 0, 2)
	middle := between(t, 1, low[0], low[1])
	// sound adds the usual tree and gives its root with the two nodes below it.
	sound := func(m *carMaker) (root, left, right string) {
		left = m.node("", leaf{key: low[0], value: m.value(1)})
		right = m.node("", leaf{key: low[1], value: m.value(2)})
		return m.node(left, leaf{key: middle, value: m.value(3), right: right}), left, right
	}
	usual := func(m *carMaker) string {
		root, _, _ := sound(m)
		return m.car(m.commit(root, nil))
	}
	single := func(leaves ...leaf) func(m *carMaker) string {
		return func(m *carMaker) string {
			for i := range leaves {
				if leaves[i].value == "" {
					leaves[i].value = m.value(9)
				}
			}
			return m.car(m.commit(m.node("", leaves...), nil))
		}
	}
	committed := func(change func(*repo.Commit)) func(*carMaker) string {
		return func(m *carMaker) string {
			root, _, _ := sound(m)
			return m.car(m.commit(root, change))
		}
	}
	without := func(which int) func(*carMaker) string {
		return func(m *carMaker) string {
			root, left, right := sound(m)
			head := m.commit(root, nil)
			m.drop([]string{head, root, left, right, m.value(1)}[which])
			if which == 4 {
				m.drop(m.blocks[len(m.blocks)-1][0]) // value added it once more
			}
			return m.car(head)
		}
	}
	raw := "\x01\x55\x12\x20" + strings.Repeat("r", 32)
	ahead := syntax.NewTID(time.Now().Add(48*time.Hour).UnixMicro(), 1).String()
	for name, c := range map[string]struct {
		make func(*carMaker) string
		want Reason
	}{
		"sound":           {usual, ""},
		"two roots":       {func(m *carMaker) string { root, left, _ := sound(m); return m.car(m.commit(root, nil), left) }, ""},
		"repeated blocks": {func(m *carMaker) string { b := usual(m); return b + b[len(carHeader(idOf(""))):] }, ""},
		"strange blocks": {func(m *carMaker) string {
			return usual(m) + frame(raw+"anything") + frame("\x12\x20"+strings.Repeat("0", 32)) + frame("x") + frame("")[1:]
		}, ""},
		"large strange block": {func(m *carMaker) string {
			return usual(m) + frame(idOf(strings.Repeat("x", maxBlock+1))+strings.Repeat("x", maxBlock+1))
		}, ""},
		"empty repo": {func(m *carMaker) string { return m.car(m.commit(m.node(""), nil)) }, ""},

		"nothing":                 {func(*carMaker) string { return "" }, ReasonCutBody},
		"text":                    {func(*carMaker) string { return "hello, this is no car" }, ReasonBadAnswer},
		"json":                    {func(*carMaker) string { return `{"error":"none"}` }, ReasonBadAnswer},
		"html":                    {func(*carMaker) string { return "<!doctype html>" }, ReasonBadAnswer},
		"header only":             {func(*carMaker) string { return carHeader(idOf("x")) }, ReasonIncomplete},
		"no roots":                {func(m *carMaker) string { usual(m); return m.car() }, ReasonBadAnswer},
		"raw root":                {func(m *carMaker) string { usual(m); return m.car(raw) }, ReasonBadAnswer},
		"root that is a node":     {func(m *carMaker) string { root, _, _ := sound(m); return m.car(root) }, ReasonBadAnswer},
		"root that is a record":   {func(m *carMaker) string { return m.car(m.value(1)) }, ReasonBadAnswer},
		"version 2":               {func(m *carMaker) string { return strings.Replace(usual(m), "version\x01", "version\x02", 1) }, ReasonBadAnswer},
		"huge header":             {func(*carMaker) string { return "\xff\xff\xff\xff\x0f" }, ReasonBadAnswer},
		"header of many roots":    {func(*carMaker) string { return frame("\xa2\x65roots\x9b\x7f\xff\xff\xff\xff\xff\xff\xff") }, ReasonBadAnswer},
		"huge block":              {func(m *carMaker) string { return usual(m) + "\xff\xff\xff\xff\xff\xff\xff\xff\x7f" }, ReasonBadAnswer},
		"endless varint":          {func(m *carMaker) string { return usual(m) + strings.Repeat("\xff", 20) }, ReasonBadAnswer},
		"empty block":             {func(m *carMaker) string { return usual(m) + "\x00" }, ReasonBadAnswer},
		"cut in a block":          {func(m *carMaker) string { b := usual(m); return b[:len(b)-5] }, ReasonCutBody},
		"cut in a cid":            {func(m *carMaker) string { return usual(m) + "\x40" + linkPrefix }, ReasonCutBody},
		"cut in a length":         {func(m *carMaker) string { return usual(m) + "\x80" }, ReasonCutBody},
		"cut in a strange block":  {func(m *carMaker) string { return usual(m) + "\x40" + raw }, ReasonCutBody},
		"cut in the header":       {func(m *carMaker) string { return usual(m)[:20] }, ReasonCutBody},
		"wrong hash":              {func(m *carMaker) string { b := []byte(usual(m)); b[len(b)-1]++; return string(b) }, ReasonBadAnswer},
		"wrong hash, large block": {func(m *carMaker) string { return usual(m) + frame(idOf("x")+strings.Repeat("x", maxBlock+1)) }, ReasonBadAnswer},

		"commit missing":      {without(0), ReasonIncomplete},
		"top node missing":    {without(1), ReasonIncomplete},
		"left node missing":   {without(2), ReasonIncomplete},
		"right node missing":  {without(3), ReasonIncomplete},
		"record missing":      {without(4), ReasonIncomplete},
		"cut between blocks":  {func(m *carMaker) string { b := usual(m); return b[:strings.LastIndex(b, linkPrefix)-1] }, ReasonIncomplete},
		"another one's":       {committed(func(c *repo.Commit) { c.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb" }), ReasonBadAnswer},
		"repo version 2":      {committed(func(c *repo.Commit) { c.Version = 2 }), ReasonBadAnswer},
		"rev is no tid":       {committed(func(c *repo.Commit) { c.Rev = "yesterday" }), ReasonBadRev},
		"no rev":              {committed(func(c *repo.Commit) { c.Rev = "" }), ReasonBadRev},
		"rev in the future":   {committed(func(c *repo.Commit) { c.Rev = ahead }), ReasonBadRev},
		"tree is a raw block": {func(m *carMaker) string { return m.car(m.commit(raw, nil)) }, ReasonBadAnswer},
		"wrong key": {func(m *carMaker) string {
			right := m.key
			m.key = newCARMaker(m.tb).key
			b := usual(m)
			m.key = right
			return b
		}, ReasonBadSignature},
		"commit with a tail": {func(m *carMaker) string {
			root, _, _ := sound(m)
			m.commit(root, nil)
			return m.car(m.put(m.blocks[len(m.blocks)-1][1] + "\xf6"))
		}, ReasonBadAnswer},
		"huge commit": {func(m *carMaker) string {
			root, _, _ := sound(m)
			return m.car(m.commit(root, func(c *repo.Commit) { c.Rev = strings.Repeat("2", maxCommit) }))
		}, ReasonBadAnswer},

		"prefix out of range": {single(leaf{key: low[0]}, leaf{key: "zzz", prefix: 1000}), ReasonBadAnswer},
		"first prefix":        {single(leaf{key: low[0], prefix: 1}), ReasonBadAnswer},
		"negative prefix":     {single(leaf{key: low[0], prefix: -1}), ReasonBadAnswer},
		"huge prefix":         {single(leaf{key: low[0]}, leaf{key: "z", prefix: 1 << 62}), ReasonBadAnswer},
		"empty key":           {single(leaf{key: ""}), ReasonBadAnswer},
		"key too long":        {single(leaf{key: strings.Repeat("k", 1025)}), ReasonBadAnswer},
		"duplicate key":       {single(leaf{key: low[0]}, leaf{key: low[0]}), ReasonBadAnswer},
		"unsorted":            {single(leaf{key: low[1]}, leaf{key: low[0]}), ReasonBadAnswer},
		"layers mixed":        {single(leaf{key: low[0]}, leaf{key: middle}), ReasonBadAnswer},
		"record without cid":  {single(leaf{key: low[0], value: "\x00"}), ReasonBadAnswer},
		"huge count": {func(m *carMaker) string {
			return m.car(m.commit(m.put("\xa2\x61e\x9b\x00\xff\xff\xff\xff\xff\xff\xff\x61l\xf6"), nil))
		}, ReasonBadAnswer},
		"endless array":   {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61e\x9f\xff\x61l\xf6"), nil)) }, ReasonBadAnswer},
		"node of floats":  {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61e\xf9\x00\x00\x61l\xf6"), nil)) }, ReasonBadAnswer},
		"node with tail":  {func(m *carMaker) string { return m.car(m.commit(m.put(nodeBytes("")+"\x00"), nil)) }, ReasonBadAnswer},
		"node cut":        {func(m *carMaker) string { b := nodeBytes(""); return m.car(m.commit(m.put(b[:len(b)-1]), nil)) }, ReasonBadAnswer},
		"members swapped": {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61l\xf6\x61e\x80"), nil)) }, ReasonBadAnswer},
		"long numbers":    {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61e\x98\x00\x61l\xf6"), nil)) }, ReasonBadAnswer},
		"deep chain": {func(m *carMaker) string {
			id := m.node("", leaf{key: low[0], value: m.value(1)})
			for range 1000 {
				id = m.node(id)
			}
			return m.car(m.commit(id, nil))
		}, ReasonBadAnswer},
		"top without a key": {func(m *carMaker) string {
			return m.car(m.commit(m.node(m.node("", leaf{key: low[0], value: m.value(1)})), nil))
		}, ReasonBadAnswer},
		"empty node below": {func(m *carMaker) string {
			return m.car(m.commit(m.node(m.node(""), leaf{key: middle, value: m.value(1)}), nil))
		}, ReasonBadAnswer},
		"left child of the wrong layer": {func(m *carMaker) string {
			top := keys(collection, 2, 1)[0]
			first := keys("com.example.a", 0, 1)[0]
			return m.car(m.commit(m.node(m.node("", leaf{key: first, value: m.value(1)}), leaf{key: top, value: m.value(2)}), nil))
		}, ReasonBadAnswer},
		"right child of the wrong layer": {func(m *carMaker) string {
			right := m.node("", leaf{key: keys("com.example.z", 1, 1)[0], value: m.value(1)})
			return m.car(m.commit(m.node("", leaf{key: middle, value: m.value(2), right: right}), nil))
		}, ReasonBadAnswer},
		"child below layer zero": {func(m *carMaker) string {
			right := m.node("", leaf{key: low[1], value: m.value(1)})
			return m.car(m.commit(m.node("", leaf{key: low[0], value: m.value(2), right: right}), nil))
		}, ReasonBadAnswer},
		"the same node twice": {func(m *carMaker) string {
			_, left, _ := sound(m)
			return m.car(m.commit(m.node(left, leaf{key: middle, value: m.value(2), right: left}), nil))
		}, ReasonBadAnswer},
		"child out of order": {func(m *carMaker) string {
			left, right := m.node("", leaf{key: low[1], value: m.value(1)}), m.node("", leaf{key: low[0], value: m.value(2)})
			return m.car(m.commit(m.node(left, leaf{key: middle, value: m.value(3), right: right}), nil))
		}, ReasonBadAnswer},
		"raw node": {func(m *carMaker) string {
			return m.car(m.commit(m.node(raw, leaf{key: middle, value: m.value(3)}), nil))
		}, ReasonBadAnswer},
		"commit of two repos": {func(m *carMaker) string {
			commit := m.commit(m.node("", leaf{key: low[0], value: m.value(1)}), nil)
			block := m.blocks[len(m.blocks)-1][1]
			m.drop(commit)
			return m.car(m.put("\xa7\x63did" + cborHead(majorText, 7) + "did:x:y" + block[1:]))
		}, ReasonBadAnswer},
		"commit of two revs": {func(m *carMaker) string {
			commit := m.commit(m.node("", leaf{key: low[0], value: m.value(1)}), nil)
			block := m.blocks[len(m.blocks)-1][1]
			m.drop(commit)
			return m.car(m.put("\xa7\x63rev" + cborHead(majorText, uint64(len(testRev))) + testRev + block[1:]))
		}, ReasonBadAnswer},
		"large node": {func(m *carMaker) string { return m.car(m.commit(m.put(strings.Repeat("x", maxBlock+1)), nil)) }, ReasonTooLarge},
		"too many collections": {func(m *carMaker) string {
			var all []string
			for i := range maxCollections + 1 {
				all = append(all, keys(fmt.Sprintf("com.example.c%04d", i), 0, 1)[0])
			}
			return m.car(m.commit(m.node("", compressed(m.value(1), all...)...), nil))
		}, ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newCARMaker(t)
			host := serveCAR(t, c.make(m))
			client := newClient(t, Config{})
			r, err := client.Repo(t.Context(), host, m.ident())
			if got := reasonOf(err); got != string(c.want) {
				t.Fatalf("got %q (%v), want %q", got, err, c.want)
			}
			if err == nil {
				r.Close()
			} else if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is no line: %q", err)
			}
			if st := client.gates.look(host).breakers[wayRepo].state(); (st.Failures > 0) != (name == "html") {
				t.Errorf("breaker: %+v", st)
			}
			if !client.cars.pool.TryAcquire(carBudget - maxCARHeld) {
				t.Error("memory is still held")
			}
		})
	}
}

func TestCARsPastTheCapAreTooLarge(t *testing.T) {
	t.Parallel()
	rest := []byte(frame(idOf(strings.Repeat("z", 1<<20)) + strings.Repeat("z", 1<<20)))
	tiny := []byte(strings.Repeat(frame(idOf("")), 20_000))
	for name, body := range map[string][]byte{"of large blocks": rest, "of tiny blocks": tiny} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := 0
			host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(carHeader(idOf("x"))))
				for sent < maxCAR+maxCAR/4 {
					n, err := w.Write(body)
					if sent += n; err != nil {
						return
					}
				}
			})
			c := newClient(t, Config{})
			_, err := c.Repo(t.Context(), host, newCARMaker(t).ident())
			wantReason(t, err, ReasonTooLarge)
			if !c.cars.pool.TryAcquire(carBudget - maxCARHeld) {
				t.Error("memory is still held")
			}
		})
	}
}
