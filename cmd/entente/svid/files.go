package svid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/xdsbootstrap"
)

// Names of the files of an SVID.
const (
	svidFile   = xdsbootstrap.SVIDFile
	keyFile    = xdsbootstrap.KeyFile
	bundleFile = "bundle.pem"
)

// maxFileName is the longest file name that common file systems accept.
const maxFileName = 255

// svidFiles are the names of the files that are written for an SVID.
var svidFiles = []string{svidFile, keyFile, bundleFile}

// trustBundle is what the files need of a bundle.
type trustBundle interface {
	PEM() []byte
	Marshal() []byte
}

// files is the content of a folder: an SVID, the bundle of its trust domain and, if not nil, the bundles of all
// domains.
type files struct {
	svid *x509svid.SVID
	own  trustBundle
	all  map[string]trustBundle
}

// writeFiles writes the files as one generation.
func writeFiles(dir string, f files) error {
	chain, key, err := f.svid.Marshal()
	if err != nil {
		return fmt.Errorf("encode the SVID: %w", err)
	}
	parts := []part{
		{keyFile, cli.SecretMode, key}, {svidFile, cli.PublicMode, chain}, {bundleFile, cli.PublicMode, f.own.PEM()},
	}
	if f.all == nil {
		return writeGeneration(dir, parts)
	}
	documents := map[string][]byte{}
	for domain, b := range f.all {
		documents[domain] = b.Marshal()
		if name := xdsbootstrap.RootsFile(domain); len(name) <= maxFileName {
			parts = append(parts, part{name, cli.PublicMode, b.PEM()})
		}
	}
	bundles, err := xdsbootstrap.BundleMap(documents)
	if err != nil {
		return err
	}
	return writeGeneration(dir, append(parts, part{xdsbootstrap.BundleMapFile, cli.PublicMode, bundles}))
}

// equal reports whether two contents are the same.
func (f files) equal(o files) bool {
	if f.svid != o.svid || f.svid == nil || len(f.all) != len(o.all) ||
		!bytes.Equal(f.own.Marshal(), o.own.Marshal()) {
		return false
	}
	for domain, b := range f.all {
		if other, ok := o.all[domain]; !ok || !bytes.Equal(b.Marshal(), other.Marshal()) {
			return false
		}
	}
	return true
}

// present returns what a source has now.
func present(source *client.X509Source) files {
	own := source.OwnBundle()
	// The cluster may no longer host the SVID's domain. The SVID needs its bundle nevertheless.
	f := files{svid: source.Issued().SVID, own: own, all: map[string]trustBundle{own.TrustDomain().Name(): own}}
	for _, b := range source.Bundles() {
		f.all[b.TrustDomain().Name()] = b
	}
	return f
}

// writeRetry is the wait after the files could not be written: somebody has to make room, or change a mode.
const writeRetry = time.Second

// keepFiles writes the SVID and the bundles, calls written after the first time, and writes them again whenever they
// change, until ctx ends. It reports failures and renewals to log.
func keepFiles(
	ctx context.Context, member *cli.Member, cfg client.X509SourceConfig, dir string, log io.Writer,
	written func(*client.Issued) error,
) (err error) {
	report := reporter{id: cfg.ID.String(), to: log}
	cfg.OnEvent = report.event
	source, err := client.NewX509Source(ctx, member, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	return follow(ctx, dir, report, follower{
		present: func() files { return present(source) },
		updated: source.Updated,
		first:   func() error { return written(source.Issued()) },
	})
}

// follower is a source of files.
type follower struct {
	present func() files
	updated func() <-chan struct{}
	first   func() error // called after the files were written the first time
}

// follow writes files whenever they change, until ctx ends.
func follow(ctx context.Context, dir string, report reporter, from follower) error {
	var now files
	failing := false
	for {
		var retry <-chan time.Time
		updated := from.updated()
		if next := from.present(); !next.equal(now) {
			err := writeFiles(dir, next)
			switch {
			case err != nil:
				if !failing {
					report.line("cannot be written, and is retried", err)
				}
				failing, retry = true, time.After(writeRetry)
			case now.svid == nil:
				if err := from.first(); err != nil {
					return err
				}
				fallthrough
			default:
				now, failing = next, false
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-updated:
		case <-retry:
		}
	}
}

// reporter prints what happens to an SVID.
type reporter struct {
	id string
	to io.Writer
}

func (r reporter) event(e client.Event) { r.line(e.Message, e.Err) }

func (r reporter) line(message string, err error) {
	if err != nil {
		message += ": " + cli.Sentence(err)
	}
	fmt.Fprintf(r.to, "entente: the SVID of %s %s\n", r.id, cli.Printable(message))
}
