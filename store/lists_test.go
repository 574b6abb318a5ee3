package store_test

import (
	"bytes"
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
)

// gather lists the records that a read hands on.
func gather(read func(each func(*store.Record) error) error) (list []store.Record, err error) {
	err = read(func(r *store.Record) error {
		kept := *r
		kept.Body.Data = bytes.Clone(r.Body.Data) // which is the store's own
		list = append(list, kept)
		return nil
	})
	return list, err
}

func repoRecords(ctx context.Context, s *store.Store, p store.RepoPage) ([]store.Record, error) {
	return gather(func(each func(*store.Record) error) error {
		_, err := s.RepoRecords(ctx, p, each)
		return err
	})
}

func servedPage(ctx context.Context, s *store.Store, p store.RepoPage) (list []store.Record, account string, more bool, err error) {
	list, err = gather(func(each func(*store.Record) error) (err error) {
		account, more, err = s.ServedPage(ctx, p, each)
		return err
	})
	return list, account, more, err
}

func newest(ctx context.Context, s *store.Store, c syntax.NSID, below uint64, limit int) (list []store.Record, next uint64, err error) {
	list, err = gather(func(each func(*store.Record) error) (err error) {
		next, err = s.Newest(ctx, c, below, limit, each)
		return err
	})
	return list, next, err
}

func byKey(ctx context.Context, s *store.Store, c syntax.NSID, below *store.KeyPlace, limit int) (list []store.Record, next *store.KeyPlace, err error) {
	list, err = gather(func(each func(*store.Record) error) (err error) {
		next, err = s.ByKey(ctx, c, below, limit, each)
		return err
	})
	return list, next, err
}
