package issue

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/svid"
)

// ownSecret is the name of the member's SVIDs in the key store.
const ownSecret = "own-svids"

// savedSVID is an [OwnSVID] in the key store.
type savedSVID struct {
	Chain [][]byte `json:"chain"` // DER, the leaf first
	Key   []byte   `json:"key"`   // PKCS #8
}

// save writes the SVIDs of the home domain to the key store, if one of them is new. While the store is locked they stay
// unsaved; Reconcile runs again once it is unlocked.
func (o *OwnSVIDs) save() error {
	store, ok := o.issuer.config.Keys.(keys.SecretStore)
	if !ok || !o.unsaved {
		return nil
	}
	var saved []savedSVID
	for _, id := range o.atHome() {
		own := o.Get(id)
		if own == nil {
			continue
		}
		key, err := x509.MarshalPKCS8PrivateKey(own.Certificate.PrivateKey)
		if err != nil {
			return fmt.Errorf("save %s: %w", id, err)
		}
		saved = append(saved, savedSVID{own.Certificate.Certificate, key})
	}
	raw, err := json.Marshal(saved)
	if err == nil {
		err = store.SaveSecret(ownSecret, raw)
	}
	if err == nil || errors.Is(err, keys.ErrLocked) {
		o.unsaved = err != nil
		return nil
	}
	return fmt.Errorf("keep them for a restart: %w", err)
}

// atHome returns the names of the SVIDs that are in the key store: those by which callers reach the member and its
// bundle endpoint before its state is loaded.
func (o *OwnSVIDs) atHome() []spiffeid.ID {
	var names []spiffeid.ID
	home := o.issuer.config.Home
	if id, err := svid.MemberID(home, o.issuer.config.Member); err == nil {
		names = append(names, id)
	}
	if id, err := svid.EndpointID(home); err == nil {
		names = append(names, id)
	}
	return names
}

// Restore takes over the SVIDs that this member had before it was started. Reconcile renews them as soon as it runs:
// until then they prove to others which member this is, and nothing about what this member can do. Without any, Restore
// changes nothing. The error wraps [keys.ErrLocked] if a later call can succeed; after every other one, Reconcile has
// new SVIDs signed.
func (o *OwnSVIDs) Restore() error {
	store, ok := o.issuer.config.Keys.(keys.SecretStore)
	if !ok {
		return nil
	}
	raw, err := store.LoadSecret(ownSecret)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var saved []savedSVID
	if err := json.Unmarshal(raw, &saved); err != nil {
		return fmt.Errorf("read the SVIDs that this member had: %w", err)
	}
	names := o.atHome()
	var errs []error
	for _, s := range saved {
		id, own, err := s.parse()
		if err == nil && !slices.Contains(names, id) {
			err = fmt.Errorf("the SVID is that of %s, not of this member", id)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read the SVIDs that this member had: %w", err))
			continue
		}
		o.mu.Lock()
		if o.held[id] == nil {
			o.held[id] = own
		}
		o.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Renewed returns an error while the SVID of this member is one that was signed before its start.
func (o *OwnSVIDs) Renewed() error {
	for _, id := range o.atHome() {
		if own := o.Get(id); own != nil && own.restored {
			return fmt.Errorf("%s was signed before this member started, and not renewed since", id)
		}
	}
	return nil
}

// parse returns the SVID and its name.
func (s savedSVID) parse() (spiffeid.ID, *OwnSVID, error) {
	if len(s.Chain) == 0 {
		return spiffeid.ID{}, nil, errors.New("one has no certificate")
	}
	leaf, err := x509.ParseCertificate(s.Chain[0])
	if err != nil {
		return spiffeid.ID{}, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return spiffeid.ID{}, nil, err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || !private.PublicKey.Equal(leaf.PublicKey) {
		return spiffeid.ID{}, nil, errors.New("the key of one is not that of its certificate")
	}
	if len(leaf.URIs) != 1 {
		return spiffeid.ID{}, nil, fmt.Errorf("one has %d URIs", len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	return id, &OwnSVID{
		Certificate: &tls.Certificate{Certificate: s.Chain, PrivateKey: private, Leaf: leaf}, restored: true,
	}, err
}
