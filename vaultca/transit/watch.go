package transit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/vaultca/vault"
)

// keysPerCheck is the number of keys that one check reads, beside the suspect ones.
const keysPerCheck = 10

// suspicion is a sign that a key is not in Vault as it was made.
type suspicion struct {
	why   error
	since time.Time // when Vault first reported it; zero if it was not checked yet
}

// Run keeps the login alive, deletes doomed keys in Vault, and finds lost keys, until ctx ends. Signatures under way
// end with it.
func (t *Store) Run(ctx context.Context) error {
	defer t.stop()
	group, ctx := errgroup.WithContext(ctx)
	if !t.shared {
		group.Go(func() error { return t.caller.Keep(ctx) })
	}
	group.Go(func() error {
		t.watch(ctx)
		return nil
	})
	err := group.Wait()
	if !t.shared {
		t.caller.Close()
	}
	return err
}

// watch checks keys again and again. Intervals differ by up to a tenth, so that members do not call at the same time.
func (t *Store) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	after := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.wake:
		}
		err := t.deleteDoomed(ctx)
		if !vault.Transient(err) {
			err = errors.Join(err, t.checkSuspects(ctx))
		}
		if !vault.Transient(err) {
			var nextErr error
			after, nextErr = t.checkNext(ctx, after)
			err = errors.Join(err, nextErr)
		}
		if err != nil {
			t.outcome(ctx, taskRead, err)
		}
		interval := t.config.CheckInterval
		if t.suspects() > 0 {
			interval = min(interval, t.config.ConfirmAfter)
		}
		early := rand.Int64N(int64(interval/10) + 1) //nolint:gosec // G404: spreads load, guards nothing
		timer.Reset(interval - time.Duration(early))
	}
}

// read reads the description of a key.
func (t *Store) read(ctx context.Context, e entry) (keyDescription, error) {
	found, err := readKey(ctx, t.caller, e)
	if err == nil || errors.Is(err, vault.ErrKeyGone) {
		t.outcome(ctx, taskRead, nil)
		return found, err
	}
	return found, fmt.Errorf("read key %s: %w", e.Key, err)
}

// deleteDoomed deletes doomed keys in Vault. A refusal for one key does not stop the others.
func (t *Store) deleteDoomed(ctx context.Context) error {
	t.mu.Lock()
	doomed := slices.Collect(maps.Values(t.doomed))
	t.mu.Unlock()
	var errs []error
	for _, key := range doomed {
		err := t.deleteOne(ctx, key.entry)
		if errs = append(errs, err); vault.Transient(err) || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (t *Store) deleteOne(ctx context.Context, e entry) error {
	log := t.config.Vault.Logger.With("key", e.Key, "mount", e.Mount)
	found, err := t.read(ctx, e)
	gone := errors.Is(err, vault.ErrKeyGone)
	switch {
	case gone:
	case err != nil:
		return err
	case e.Public != nil && !found.is(e.Public):
		// The key is not one of this member's. It stays as evidence for an operator.
		log.Error("another key stands in Vault under the name of one that was to be deleted; it is left alone")
	default:
		if err := deleteKey(ctx, t.caller, e); err != nil {
			return fmt.Errorf("delete key %s: %w", e.Key, err)
		}
		log.Info("deleted a key in Vault")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.doomed, e.Key)
	if err := t.index.remove(e); err != nil {
		log.Error("a key is deleted, but its entry in the index stays until the member starts again", "error", err)
	}
	return nil
}

// suspectKey records a problem with a key, and wakes the watch.
func (t *Store) suspectKey(e entry, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.suspect[e.Key]; known || time.Since(t.blamed[e.Key]) < t.config.CheckInterval {
		return
	}
	if key, ok := t.keys[e.Name]; ok && key.entry.Key == e.Key {
		t.suspect[e.Key] = suspicion{why: why}
		signal(t.wake)
	}
}

func (t *Store) suspects() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.suspect)
}

// checkSuspects reads the suspect keys.
func (t *Store) checkSuspects(ctx context.Context) error {
	t.mu.Lock()
	var keys []*signingKey
	for _, key := range t.keys {
		if _, ok := t.suspect[key.entry.Key]; ok {
			keys = append(keys, key)
		}
	}
	t.mu.Unlock()
	return t.checkKeys(ctx, keys)
}

// checkNext reads the keys after the one of that name, a few at a time, and returns the name of the last.
func (t *Store) checkNext(ctx context.Context, after string) (string, error) {
	t.mu.Lock()
	names := slices.Sorted(maps.Keys(t.keys))
	next, _ := slices.BinarySearch(names, after+"\x00")
	names = names[next:]
	names = names[:min(keysPerCheck, len(names))]
	var keys []*signingKey
	for _, name := range names {
		if key := t.keys[name]; t.suspect[key.entry.Key].why == nil {
			keys = append(keys, key)
		}
	}
	t.mu.Unlock()
	if len(names) == 0 {
		return "", nil
	}
	return names[len(names)-1], t.checkKeys(ctx, keys)
}

// checkKeys reads keys, and decides which are lost.
func (t *Store) checkKeys(ctx context.Context, keys []*signingKey) error {
	var errs []error
	for _, key := range keys {
		found, err := t.read(ctx, key.entry)
		switch {
		case err == nil && found.is(key.entry.Public):
			t.cleared(key, found)
		case err == nil:
			t.missing(key, vault.ErrKeyChanged)
		case errors.Is(err, vault.ErrKeyGone):
			t.missing(key, err)
		default:
			errs = append(errs, err)
		}
		if vault.Transient(err) || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// cleared handles a key that is in Vault as it was made: it is no longer suspect.
func (t *Store) cleared(key *signingKey, found keyDescription) {
	e := key.entry
	t.mu.Lock()
	was, suspected := t.suspect[e.Key]
	delete(t.suspect, e.Key)
	if suspected {
		t.blamed[e.Key] = time.Now()
	}
	_, known := t.exposed[e.Key]
	leaky := found.leaky()
	if leaky != "" && t.keys[e.Name] == key {
		t.exposed[e.Key] = struct{}{}
	} else {
		delete(t.exposed, e.Key)
	}
	t.mu.Unlock()
	log := t.config.Vault.Logger.With("id", e.Name, "key", e.Key, "mount", e.Mount)
	if suspected {
		log.Warn(
			"a signature by Vault failed, though the key is in its place",
			"reason",
			vault.Reason(was.why),
			"error",
			was.why,
		)
	}
	if leaky != "" && !known {
		log.Error(
			"a signing key can have left Vault: "+leaky+"; find out who did that, and taint its authority",
			"alarm",
			"exposed",
		)
	}
}

// missing handles a key that Vault does not have, or has replaced. After two reports, some time apart, the key is lost.
func (t *Store) missing(key *signingKey, why error) {
	e := key.entry
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys[e.Name] != key {
		return // it was replaced, certified or deleted meanwhile; the next check sees it
	}
	was := t.suspect[e.Key]
	if was.since.IsZero() {
		t.suspect[e.Key] = suspicion{why, time.Now()}
		return
	}
	if time.Since(was.since) < t.config.ConfirmAfter {
		return
	}
	t.config.Vault.Logger.Error(
		"a signing key is lost; its authority is replaced. Find out who deleted or replaced it in Vault",
		"id",
		e.Name,
		"key",
		e.Key,
		"mount",
		e.Mount,
		"reason",
		vault.Reason(why),
		"error",
		why,
	)
	t.metrics.lost.WithLabelValues(vault.Reason(why)).Inc()
	if err := t.doom(key); err != nil {
		t.config.Vault.Logger.Error(
			"a lost key stays in the index until it is found lost again",
			"id",
			e.Name,
			"error",
			err,
		)
	}
	signal(t.lost)
}
