package index

import "context"

// deletions sizes the notes of deletions.
func (c *checker) deletions(ctx context.Context) error {
	for _, name := range collectionNames(c.tx) {
		b := c.tx.Bucket([]byte(deletionsBucket)).Bucket([]byte(name))
		if b == nil {
			continue
		}
		if err := eachDeletion(b, func(n rid, bytes int64) { c.sizes[n] += bytes }); err != nil {
			c.found("deletions of %s: %w", name, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// accountSizes checks the sizes of repos against their rows.
func (c *checker) accountSizes(context.Context) error {
	for id, repo := range c.repos {
		if want := c.sizes[id] + repo.namesBytes(); repo.Bytes != want {
			c.found("repo %s takes %d bytes by its row, %d by what there is", repo.DID, repo.Bytes, want)
		}
	}
	return nil
}
