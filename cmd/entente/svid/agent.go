package svid

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// x509Bundle is a bundle of the Workload API as files have it.
type x509Bundle struct{ *x509bundle.Bundle }

// PEM implements trustBundle.
func (b x509Bundle) PEM() []byte {
	text, _ := b.Bundle.Marshal() // parsed certificates are encoded without an error
	return text
}

// Marshal implements trustBundle.
func (b x509Bundle) Marshal() []byte {
	text, _ := spiffebundle.FromX509Bundle(b.Bundle).Marshal() // and so are their keys
	return text
}

// held is what the agent has sent last. It is a watcher of the Workload API.
type held struct {
	id     string
	report reporter

	mu      sync.Mutex
	files   files
	updated chan struct{} // closed at the next change
	failing bool
}

// filesOf returns the files of the SVID with an ID, or of the default one.
func filesOf(x *workloadapi.X509Context, id string) (files, error) {
	var svid *x509svid.SVID
	for _, s := range x.SVIDs {
		if id == "" || s.ID.String() == id {
			svid = s
			break
		}
	}
	if svid == nil {
		return files{}, fmt.Errorf("the agent has no SVID of %s for this program: see 'entente entry list'", id)
	}
	f := files{svid: svid, all: map[string]trustBundle{}}
	for _, b := range x.Bundles.Bundles() {
		f.all[b.TrustDomain().Name()] = x509Bundle{b}
	}
	if f.own = f.all[svid.ID.TrustDomain().Name()]; f.own == nil {
		return files{}, fmt.Errorf("the agent sent no bundle of %s", svid.ID.TrustDomain().Name())
	}
	return f, nil
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (h *held) OnX509ContextUpdate(x *workloadapi.X509Context) {
	f, err := filesOf(x, h.id)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.report.line("is gone, and its files stay", err)
		return
	}
	h.files, h.failing = f, false
	close(h.updated)
	h.updated = make(chan struct{})
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher. The library tries again.
func (h *held) OnX509ContextWatchError(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.failing && !errors.Is(err, context.Canceled) {
		h.report.line("cannot be read from the agent, and is retried", err)
	}
	h.failing = true
}

// fromAgent writes the files of this program from an agent, and with watch keeps them fresh until ctx ends.
func fromAgent(ctx context.Context, env *cli.Env, socket, id, dir string, watch bool) error {
	socket, err := filepath.Abs(socket)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--dir %s cannot be made (%w): name a folder that this user may write to", dir,
			cli.Cause(err))
	}
	address := workloadapi.WithAddr("unix://" + socket)
	first, cancel := context.WithTimeout(ctx, env.Timeout)
	defer cancel()
	x, err := workloadapi.FetchX509Context(first, address)
	if err != nil {
		return fmt.Errorf("read the SVID from the agent at %s: %w", socket, err)
	}
	f, err := filesOf(x, id)
	if err != nil {
		return err
	}
	if !watch {
		if err := writeFiles(dir, f); err != nil {
			return err
		}
		return printed(env, f, dir)
	}
	h := &held{id: id, report: reporter{id: f.svid.ID.String(), to: env.Stderr}, files: f, updated: make(chan struct{})}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- workloadapi.WatchX509Context(ctx, h, address) }()
	err = follow(ctx, dir, h.report, follower{
		present: func() files {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.files
		},
		updated: func() <-chan struct{} {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.updated
		},
		first: func() error { return printed(env, f, dir) },
	})
	stop()
	_ = <-ended //nolint:staticcheck // the end that was requested
	if errors.Is(err, context.Canceled) {
		return nil // it was interrupted
	}
	return err
}

// printed prints what was written.
func printed(env *cli.Env, f files, dir string) error {
	id := f.svid.ID.String()
	leaf := f.svid.Certificates[0]
	expires := timestamppb.New(leaf.NotAfter)
	resource := &ententev1.IssueX509SVIDResponse{ExpireTime: expires}
	for _, c := range f.svid.Certificates {
		resource.Certificates = append(resource.Certificates, c.Raw)
	}
	return env.Print(resource, func(t *cli.Table) {
		t.Field("spiffe id", id)
		t.Field("expires", cli.Time(expires))
		for _, name := range svidFiles {
			t.Field("written", filepath.Join(dir, name))
		}
	})
}
