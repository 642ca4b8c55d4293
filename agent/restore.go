package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// state is what an agent needs to serve again without a member: its own identity, and those of its workloads.
type state struct {
	Node  []byte `json:"node"`
	Cache []byte `json:"cache"`
}

// saveEvery bounds how often the cache is written: changes come together.
const saveEvery = time.Second

// restore takes over the stored cache, and reports whether there is one that can be used. What cannot be used is no
// reason not to start.
func (a *agent) restore() bool {
	if a.sealed == nil {
		return false
	}
	content, err := a.sealed.load(a.node.Identity())
	if err == nil && content == nil {
		return false
	}
	var s state
	if err == nil {
		err = json.Unmarshal(content, &s)
	}
	if err == nil {
		err = a.node.Restore(s.Node)
	}
	if err == nil {
		err = a.cache.Restore(s.Cache)
	}
	if err != nil {
		a.log.Warn("the stored cache cannot be used: the agent waits for a member", "error", err)
		return false
	}
	return true
}

// keepSaved writes the cache whenever it has changed, until ctx ends.
func (a *agent) keepSaved(ctx context.Context) error {
	if a.sealed == nil {
		return nil
	}
	var last [32]byte
	for {
		changed := a.cache.Changed()
		saved, err := a.save(last)
		if err != nil {
			a.log.Error("the cache could not be stored: a restart during an outage would lose it", "error", err)
		} else {
			last = saved
		}
		timer := time.NewTimer(saveEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			_, err := a.save(last)
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(time.Minute): // the agent's own SVID was renewed
		}
	}
}

// save writes the cache if it is another one than that with a digest, and returns its digest. While the cluster refuses
// the agent nothing is stored.
func (a *agent) save(last [32]byte) ([32]byte, error) {
	if a.refused.Load() != nil { // a banned agent starts with nothing
		return [32]byte{}, a.sealed.remove()
	}
	var s state
	var err error
	if s.Cache, err = a.cache.Store(); err != nil || s.Cache == nil {
		return last, err
	}
	if s.Node, err = a.node.Store(); err != nil {
		return last, err
	}
	content, err := json.Marshal(s)
	if err != nil {
		return last, fmt.Errorf("encode the cache: %w", err)
	}
	digest := sha256.Sum256(content)
	if bytes.Equal(digest[:], last[:]) {
		return last, nil
	}
	return digest, a.sealed.save(content, a.node.Identity())
}
