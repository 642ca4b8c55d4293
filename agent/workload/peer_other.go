//go:build !linux

package workload

import (
	"context"
	"errors"
	"net"
)

func peerOf(*net.UnixConn) (Process, error) {
	return Process{}, errors.New("workloads are attested on Linux alone")
}

func dialOwn(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("kubelet.skip_verification is for Linux alone")
}

func (p Process) alive() error { return nil }

func (p Process) release() {}
