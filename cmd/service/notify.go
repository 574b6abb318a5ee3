package service

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"
)

// EnvNotify names the socket of a service manager that wants to be told how the program
// fares, as sd_notify(3) has it. systemd sets it for services of Type=notify.
const EnvNotify = "NOTIFY_SOCKET"

// What a service manager is told.
const (
	notifyReady    = "READY=1"    // requests are answered
	notifyStopping = "STOPPING=1" // the program ends
)

// notifyTimeout is how long a service manager may take to take a message.
const notifyTimeout = time.Second

// notify tells a service manager something over its socket: a path, or a name behind @.
// Without a socket nobody wants to know. Only Linux has such managers.
func notify(socket, state string) (err error) {
	if socket == "" || runtime.GOOS != "linux" {
		return nil
	}
	if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
		return fmt.Errorf("%s is %q, which is no Unix socket", EnvNotify, socket)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("%s: %w", EnvNotify, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return fmt.Errorf("%s: %w", EnvNotify, err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("%s: %w", EnvNotify, err)
	}
	return nil
}
