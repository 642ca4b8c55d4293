// Command kubedev is a Kubernetes API server to test with: the real kube-apiserver over an etcd in the same process,
// on loopback, with RBAC on. No other component of Kubernetes runs: nothing is scheduled, and what an owner reference
// names is not collected.
//
//	kubedev DIR [ADDRESS]
//
// DIR keeps its data, keys and kubeconfigs: another process over the same folder, on the same ADDRESS, continues it. If
// ADDRESS is left out, a free port is used.
//
// On standard output it prints one line of JSON when it is ready: the address, and the kubeconfig of an administrator.
// It ends when standard input closes.
//
// It is a module of its own, so that Kubernetes and etcd stay out of the product's dependencies.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// startTimeout bounds the start on a machine that is busy with other tests.
const startTimeout = 5 * time.Minute

// description is the line on standard output.
type description struct {
	Address    string `json:"address"`
	Kubeconfig string `json:"kubeconfig"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kubedev:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: kubedev DIR [ADDRESS]")
	}
	dir, address := args[0], "127.0.0.1:0"
	if len(args) == 2 {
		address = args[1]
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	store, err := startEtcd(dir)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer store.Close()
	files, err := newFiles(dir, listener.Addr().String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- serve(ctx, files, store.Clients[0].Addr().String(), listener) }()
	ready := make(chan error, 1)
	go func() { ready <- files.awaitReady(ctx, startTimeout) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("start the API server: %w", err)
	case err := <-ready:
		if err != nil {
			return err
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(description{files.address, files.kubeconfig}); err != nil {
		return err
	}
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	select {
	case err := <-stopped:
		return fmt.Errorf("the API server ended: %w", err)
	case <-closed: // the API server's own way to stop waits for requests under way, which nobody needs here
		return nil
	}
}
