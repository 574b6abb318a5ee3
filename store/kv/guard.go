package kv

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// advice is what to do about a damaged file.
const advice = "stop, run appview check, and restore a backup or begin with an empty data directory"

// callbackPanic is a panic of a callback that a transaction called. It says nothing
// about the file.
type callbackPanic struct{ cause any }

// Rethrow is deferred where a callback is called within a transaction: its panic goes
// on to the caller, and is not taken for damage.
func Rethrow() {
	if p := recover(); p != nil {
		panic(callbackPanic{p})
	}
}

// panicked is a panic that a damaged file has caused.
type panicked struct {
	cause any
	stack []byte // for whoever has to tell damage from a mistake of ours
}

func (p *panicked) Error() string {
	var fault runtime.Error
	if err, ok := p.cause.(error); ok && errors.As(err, &fault) {
		return fmt.Sprintf("a page leads astray (%v)", fault)
	}
	return fmt.Sprint(p.cause)
}

// guard runs f, which has bbolt follow what is in the file. bbolt checks little of
// that: damage makes it panic, or reach outside the file, for which the system would
// end the process. Both become ErrDamaged here. bbolt may be left with its locks
// held: it must not be used again.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil:
		case callbackPanic:
			panic(p.cause)
		default:
			err = fmt.Errorf("%w: %w", ErrDamaged, &panicked{cause: p, stack: debug.Stack()})
		}
	}()
	return f()
}
