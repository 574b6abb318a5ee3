package backfill

// Buffered is how many bytes of records count as read and not committed.
func (b *Backfill) Buffered() int64 { return b.buffered.Load() }
