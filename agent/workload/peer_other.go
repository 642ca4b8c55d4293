//go:build !linux

package workload

import (
	"errors"
	"net"
)

func peerOf(*net.UnixConn) (Process, error) {
	return Process{}, errors.New("workloads are attested on Linux alone")
}

func (p Process) alive() error { return nil }

func (p Process) release() {}
