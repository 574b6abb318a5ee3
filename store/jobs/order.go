package jobs

import "github.com/bluesky-social/indigo/atproto/syntax"

// Order is the order of keys in which a listing has come so far. Stored: never rename.
type Order string

// The orders of listings. Only in one by key is it certain that nothing has slipped from
// one page to another.
const (
	OrderUnknown Order = ""     // no two keys were listed yet
	OrderDown    Order = "down" // the highest key first
	OrderUp      Order = "up"   // the lowest key first
	OrderNone    Order = "none"
)

// With returns the order of a listing in which key follows last, the last one before.
func (o Order) With(last, key syntax.RecordKey) Order {
	switch {
	case last == "" || key == last:
		return o
	case key < last && (o == OrderUnknown || o == OrderDown):
		return OrderDown
	case key > last && (o == OrderUnknown || o == OrderUp):
		return OrderUp
	default:
		return OrderNone
	}
}
