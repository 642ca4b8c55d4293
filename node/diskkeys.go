package node

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/vaultca/transit"
	"github.com/ententehq/entente/vaultca/vault"
)

const (
	// longestUnlockPause is the longest pause between attempts to unwrap the data key.
	longestUnlockPause = 15 * time.Second
	// wrapAgainEvery is the interval at which the data key is wrapped with the newest version of a key in Vault.
	wrapAgainEvery = 24 * time.Hour
)

// diskKeys are the signing keys on disk, with what unlocks them.
type diskKeys struct {
	folder   *keys.Folder
	wrappers []*transit.Wrapper
	remote   bool // the first attempt to unlock can fail
	unlocked func()
	log      hclog.Logger
}

// openDiskKeys opens the folder of signing keys. With a wrapping key on this machine it is unlocked at once, or the
// member does not start. With one in Vault, diskKeys.run unlocks it.
func openDiskKeys(m *member) (keys.Store, error) {
	c, dir := m.cfg.Authority, m.dir.File(keyFolder)
	k := &diskKeys{log: m.log.Named("keys"), unlocked: m.restoreSVIDs}
	if len(c.Encryption) == 0 {
		m.log.Info("the signing keys on disk are not encrypted: whoever has a copy of the data folder can sign as "+
			"this member's domains", "folder", dir, "remedy", "add an encryption block to keys \"disk\"")
		folder, err := keys.OpenFolder(dir)
		return folder, err
	}
	e := keys.Encryption{Domain: m.cfg.Cluster.TrustDomain.Name(), Member: m.cfg.Member.ID, Off: c.EncryptionOff}
	for _, one := range c.Encryption {
		if one.Transit == nil {
			w, err := preflight.WrappingKey(one.Key)
			if err != nil {
				return nil, err
			}
			e.Wrappers = append(e.Wrappers, w)
			continue
		}
		cfg := *one.Transit
		cfg.Vault.Logger, cfg.Vault.Registerer = m.log.Named("transit"), m.registry
		if len(k.wrappers) > 0 {
			cfg.Vault.Registerer = nil // one login has metrics
		}
		w, err := transit.OpenWrapper(cfg, m.vault.Caller())
		if err != nil {
			return nil, err
		}
		k.remote, k.wrappers = true, append(k.wrappers, w)
		e.Wrappers = append(e.Wrappers, w)
	}
	var err error
	if k.folder, err = keys.OpenEncryptedFolder(dir, e); err != nil {
		return nil, err
	}
	m.disk = k
	locked := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_authority_keys_locked",
		Help: "1 while the signing keys on disk cannot be decrypted, so that other members sign.",
	}, func() float64 {
		if k.folder.Locked() != nil {
			return 1
		}
		return 0
	})
	if err := m.registry.Register(locked); err != nil {
		return nil, err
	}
	if k.remote {
		return k.folder, nil
	}
	return k.folder, k.folder.Unlock(context.Background()) // nothing in it waits for another system
}

// run unlocks the folder, and wraps its data key again from time to time, until ctx ends.
func (k *diskKeys) run(ctx context.Context) error {
	if !k.remote {
		<-ctx.Done()
		return ctx.Err()
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range k.wrappers {
		group.Go(func() error { return w.Run(ctx) })
	}
	group.Go(func() error {
		for {
			if err := k.unlock(ctx); err != nil {
				return err
			}
			timer := time.NewTimer(wrapAgainEvery)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
	})
	return group.Wait()
}

// unlock tries until the folder is unlocked. It logs the first failure of a row and each other reason.
func (k *diskKeys) unlock(ctx context.Context) error {
	reason := ""
	report := func(err error) {
		if text := err.Error(); text != reason {
			reason = text
			k.log.Warn("cannot unlock the signing keys; other members sign until this member can", "error", err)
		}
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = longestUnlockPause
	for {
		err := k.folder.Unlock(vault.WithFailures(ctx, report)) // which repeats calls for a while
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			k.unlocked()
			if reason != "" {
				k.log.Info("the signing keys are unlocked; this member signs again")
			}
			return nil
		case errors.Is(err, keys.ErrWrongKey):
			return err
		}
		report(err)
		timer := time.NewTimer(pauses.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}
