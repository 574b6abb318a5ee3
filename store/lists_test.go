package store_test

import (
	"bytes"
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/index"
)

// gather lists the records that a read hands on.
func gather(read func(each func(*index.Record) error) error) (list []index.Record, err error) {
	err = read(func(r *index.Record) error {
		kept := *r
		kept.Body.Data = bytes.Clone(r.Body.Data) // which is the store's own
		list = append(list, kept)
		return nil
	})
	return list, err
}

func repoRecords(ctx context.Context, s *store.Store, p index.RepoPage) ([]index.Record, error) {
	return gather(func(each func(*index.Record) error) error {
		_, err := s.Index.RepoRecords(ctx, p, each)
		return err
	})
}

func servedPage(ctx context.Context, s *store.Store, p index.RepoPage) (list []index.Record, account string, more bool, err error) {
	list, err = gather(func(each func(*index.Record) error) (err error) {
		account, more, err = s.Index.ServedPage(ctx, p, each)
		return err
	})
	return list, account, more, err
}

func newest(ctx context.Context, s *store.Store, c syntax.NSID, below uint64, limit int) (list []index.Record, next uint64, err error) {
	list, err = gather(func(each func(*index.Record) error) (err error) {
		next, err = s.Index.Newest(ctx, c, below, limit, each)
		return err
	})
	return list, next, err
}

func byKey(ctx context.Context, s *store.Store, c syntax.NSID, below *index.KeyPlace, limit int) (list []index.Record, next *index.KeyPlace, err error) {
	list, err = gather(func(each func(*index.Record) error) (err error) {
		next, err = s.Index.ByKey(ctx, c, below, limit, each)
		return err
	})
	return list, next, err
}
