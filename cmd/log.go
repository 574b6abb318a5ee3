package cmd

import (
	"io"
	"log/slog"

	"appview/cmd/service"
)

// newLog makes the log of a server.
func newLog(w io.Writer, level, format string) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, service.Usagef("log level %q is none of debug, info, warn, error", level)
	}
	opts.Level = l
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, service.Usagef("log format %q is neither text nor json", format)
	}
}
