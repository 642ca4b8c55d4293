package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/inspect"
)

// keeper keeps the files of an SVID fresh.
type keeper struct {
	wantedSVID
	dir     string
	svids   ententev1.SVIDServiceClient
	bundles ententev1.BundleServiceClient
	timeout time.Duration // of each call
	log     io.Writer

	held       *heldSVID
	known      knownBundles
	distrusted map[string]bool // authorities that are tainted or revoked
	troubled   bool            // the last attempt failed, which was told
	expired    bool            // and so was that the SVID has expired since

	saying sync.Mutex // the watches say something too
}

const (
	// lookAgain is the longest wait without a look at the clock: timers do not follow one that is set, or a machine that slept.
	lookAgain = time.Minute
	// firstAgain and lastAgain bound the wait after a failure: an election costs a second, and a member that is away for
	// hours is not stormed.
	firstAgain, lastAgain = 200 * time.Millisecond, 30 * time.Second
)

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = firstAgain, lastAgain, 0.5
	return b
}

// passing says whether an error may go away by itself.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Unknown, codes.Internal, codes.Aborted:
		return true
	}
	return false
}

// keep writes the SVID, tells first of it, and renews it until ctx ends: in time, and at once when its authority is tainted
// or revoked. It writes the bundle anew whenever that changes. What is refused for good at the beginning is an error; later
// nothing is, since whoever relies on the files is better off with old ones than with a command that has ended.
func (k *keeper) keep(ctx context.Context, first func(*ententev1.IssueX509SVIDResponse) error) error {
	retry := newBackoff()
	for k.held == nil {
		answer, err := k.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if err := first(answer); err != nil {
				return err
			}
		case !passing(err):
			return err
		default:
			k.trouble(err)
			if err := pause(ctx, retry.NextBackOff()); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	td := []string{k.id.TrustDomain().Name()}
	distrusted, bundles := make(chan told[ententev1.WatchAuthoritiesResponse]), make(chan told[ententev1.WatchBundlesResponse])
	watching.Go(func() {
		watch(ctx, k, "authorities", distrusted, func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.WatchAuthoritiesResponse], error) {
			return k.svids.WatchAuthorities(ctx, &ententev1.WatchAuthoritiesRequest{TrustDomains: td})
		})
	})
	watching.Go(func() {
		watch(ctx, k, "bundles", bundles, func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.WatchBundlesResponse], error) {
			return k.bundles.WatchBundles(ctx, &ententev1.WatchBundlesRequest{})
		})
	})
	return k.follow(ctx, distrusted, bundles)
}

// follow does what the watches and the time ask for, until ctx ends.
func (k *keeper) follow(ctx context.Context, distrusted <-chan told[ententev1.WatchAuthoritiesResponse], bundles <-chan told[ententev1.WatchBundlesResponse]) error {
	retry := newBackoff()
	at, why := k.held.renewal(rand.Float64()), "half of its life is over" //nolint:gosec // no secret
	for {
		timer := time.NewTimer(min(max(time.Until(at), 0), lookAgain))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case change := <-distrusted:
			k.distrusted = map[string]bool{}
			for _, a := range change.message.GetDistrusted() {
				k.distrusted[a.GetId()] = true
			}
			if k.distrusted[k.held.authority] {
				at, why = time.Now(), fmt.Sprintf("authority %s is trusted no more", k.held.authority)
			}
		case change := <-bundles:
			if !k.published(change) {
				at, why = time.Now(), "the new bundle could not be written"
			}
		case <-timer.C:
		}
		timer.Stop()
		if time.Now().Before(at) {
			continue
		}
		_, err := k.renew(ctx)
		if err == nil && k.distrusted[k.held.authority] {
			err = fmt.Errorf("the member still signs with authority %s, which is trusted no more", k.held.authority)
		}
		if err != nil {
			if ctx.Err() == nil {
				k.trouble(err)
			}
			at = time.Now().Add(retry.NextBackOff())
			continue
		}
		k.troubled, k.expired = false, false
		k.say("is renewed by authority %s until %s: %s", k.held.authority, k.held.notAfter.UTC().Format(time.RFC3339), why)
		retry.Reset()
		at, why = k.held.renewal(rand.Float64()), "half of its life is over" //nolint:gosec // no secret
	}
}

// renew gets another SVID and writes it. A bundle that is known to be newer than what came with it is kept.
func (k *keeper) renew(ctx context.Context) (*ententev1.IssueX509SVIDResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	next, answer, err := k.issue(ctx, k.svids)
	if err != nil {
		return nil, err
	}
	if k.held != nil && newer(k.held.bundle, next.bundle) {
		next.bundle, next.document = k.held.bundle, k.held.document
	}
	if err := next.write(k.dir, k.others()); err != nil {
		return nil, err
	}
	k.held = next
	return answer, nil
}

// newer says whether one bundle is newer than another. Those of a hosted domain all have a sequence.
func newer(a, than *inspect.BundleReport) bool {
	return a.Sequence != nil && than.Sequence != nil && *a.Sequence > *than.Sequence
}

// others are the bundles to write beside the SVID's own; none of them before the watch has told of all.
func (k *keeper) others() map[string]trustedBundle {
	if !k.known.settled() {
		return map[string]trustedBundle{}
	}
	return k.known.byDomain
}

// published takes over the bundles that have changed, and says whether the files are as they have to be.
func (k *keeper) published(change told[ententev1.WatchBundlesResponse]) bool {
	own := k.id.TrustDomain().Name()
	before := k.others()
	k.known = k.known.take(change, func(domain string, err error) {
		k.say("goes on with the bundle of %s that it has, since the new one cannot be read: %v", domain, err)
	})
	if !k.known.settled() {
		return true // the rest comes at once
	}
	with := *k.held
	mine, hosted := k.known.byDomain[own]
	switch {
	case !hosted:
		k.say("stays as it is, but the cluster is the authority for %s no more", own)
	case newer(mine.report, k.held.bundle):
		with.bundle, with.document = mine.report, mine.document
	}
	if with.bundle == k.held.bundle && maps.EqualFunc(before, k.known.byDomain, trustedBundle.equal) {
		return true
	}
	if err := with.write(k.dir, k.known.byDomain); err != nil {
		k.trouble(err)
		return false
	}
	if with.bundle != k.held.bundle {
		k.say("has a new bundle of %d X.509 authorities, sequence %d", len(with.bundle.X509Authorities), *with.bundle.Sequence)
	}
	k.held = &with
	return true
}

// trouble tells once that renewing fails, until it succeeds, and once more when the SVID has expired.
func (k *keeper) trouble(err error) {
	switch {
	case k.held != nil && !time.Now().Before(k.held.notAfter) && !k.expired:
		k.expired = true
		k.say("has expired, and still cannot be renewed: %s", sentence(err))
	case !k.troubled && k.held == nil:
		k.say("could not be issued, and will be tried again: %s", sentence(err))
	case !k.troubled:
		k.say("could not be renewed, and will be tried again; it is valid until %s: %s", k.held.notAfter.UTC().Format(time.RFC3339), sentence(err))
	}
	k.troubled = true
}

func (k *keeper) say(format string, args ...any) {
	k.saying.Lock()
	defer k.saying.Unlock()
	fmt.Fprintf(k.log, "entente: the SVID of %s %s\n", k.id, printable(fmt.Sprintf(format, args...)))
}

// told is a message of a watch. first says that it is the first since the watch was opened.
type told[M any] struct {
	message *M
	first   bool
}

// watch hands what a watch brings to the channel, and opens the watch again when it breaks, until ctx ends. What comes first is
// always the whole, so that nothing is missed in between.
func watch[M any](ctx context.Context, k *keeper, what string, to chan<- told[M], open func(context.Context) (grpc.ServerStreamingClient[M], error)) {
	retry := newBackoff()
	troubled := false
	for {
		err := func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := open(ctx)
			if err != nil {
				return err
			}
			for first := true; ; first = false {
				m, err := stream.Recv()
				if err != nil {
					return err
				}
				retry.Reset()
				troubled = false
				select {
				case to <- told[M]{m, first}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}()
		if ctx.Err() != nil {
			return
		}
		if !troubled {
			k.say("is not told of changes of %s until the watch is open again: %s", what, sentence(ended(err)))
		}
		troubled = true
		if pause(ctx, retry.NextBackOff()) != nil {
			return
		}
	}
}

// ended is why a stream ended; the end of one that is to go on is the server's stop.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the member ended it")
	}
	return err
}

// pause waits for d or for the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
