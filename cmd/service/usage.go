package service

import "fmt"

// UsageError is a mistake in how the program was called.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// AsUsage is err as a UsageError.
func AsUsage(err error) error { return UsageError{err} }
