package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
)

const (
	relayAddress     = 0
	plcAddress       = 1
	firstHostAddress = 2
	// addressesPerBlock is how many addresses of 127.77.x.0/24 are used.
	addressesPerBlock = 250
)

// listen opens a port on a loopback address of its own, so that hosts differ by
// address as they do on the network; on systems that have only 127.0.0.1, there.
func listen(number int) (net.Listener, error) {
	own := fmt.Sprintf("127.77.%d.%d:0", number/addressesPerBlock, 1+number%addressesPerBlock)
	var config net.ListenConfig
	ln, err := config.Listen(context.Background(), "tcp4", own)
	if err == nil {
		return ln, nil
	}
	ln, again := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if again != nil {
		return nil, fmt.Errorf("listen on loopback: %w", errors.Join(err, again))
	}
	return ln, nil
}
