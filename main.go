// Command appview keeps an exact index of atproto records.
package main

import (
	"os"

	"appview/cmd"
)

func main() { os.Exit(cmd.Execute()) }
