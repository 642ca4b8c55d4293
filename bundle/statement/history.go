package statement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Depth bounds the history of one domain's bundle.
type Depth struct {
	// Versions is the number of versions that are kept.
	Versions int
	// Bytes bounds the authorities of all versions, each counted once. The oldest versions lose theirs first; their
	// digests stay.
	Bytes int
}

// The depths of the two kinds of history. The authorities of ten versions have some 5 KiB for a cluster of five
// members. A foreign history is one row, which has to fit into a command of the store together with the bundle.
var (
	HostedDepth  = Depth{Versions: 100, Bytes: 256 << 10}
	ForeignDepth = Depth{Versions: 10, Bytes: 48 << 10}
)

// Recorded is the change of a history by a new version.
type Recorded struct {
	// Put are the new version, and older ones that lost their content.
	Put []*statev1.BundleVersion
	// Drop are the numbers of the versions to delete.
	Drop []uint64
	// Keep are the authorities to add, and Forget the ids of those to delete.
	Keep   []*statev1.BundleKey
	Forget [][]byte
}

// keyIDBytes is the length of the id of an authority in a history, a prefix of its SHA-256. A version that is read is
// checked by its whole digest.
const keyIDBytes = 16

// Record adds b to the history of its domain, whose versions are given oldest first. It does not change the versions.
func Record(
	b *bundle.Bundle,
	versions []*statev1.BundleVersion,
	source string,
	now time.Time,
	depth Depth,
) (Recorded, error) {
	content, digest := b.Content(), b.Digest()
	next := &statev1.BundleVersion{
		TrustDomain: b.TrustDomain().
			Name(),
		Number: 1, Sequence: content.Sequence, Digest: digest[:], Time: timestamppb.New(now), Source: source,
	}
	if n := len(versions); n > 0 {
		next.Number = versions[n-1].GetNumber() + 1
	}
	if h := content.RefreshHint; h != nil {
		next.RefreshHint = new(int64(*h / time.Second))
	}
	keys, err := historyKeys(content)
	if err != nil {
		return Recorded{}, err
	}
	for _, key := range keys {
		next.Keys = append(next.Keys, &statev1.BundleKeyRef{Id: key.GetId(), Size: keySize(key)})
	}

	var r Recorded
	before := refsOf(versions)
	kept := versions
	if over := len(versions) + 1 - depth.Versions; over > 0 {
		kept = versions[over:]
		for _, v := range versions[:over] {
			r.Drop = append(r.Drop, v.GetNumber())
		}
	}
	kept = append(slices.Clone(kept), next)
	for i := 0; i < len(kept) && sizeOf(refsOf(kept)) > depth.Bytes; i++ {
		if v := kept[i]; len(v.GetKeys()) > 0 {
			kept[i] = withoutContent(v)
			if i < len(kept)-1 {
				r.Put = append(r.Put, kept[i])
			}
		}
	}
	r.Put = append(r.Put, kept[len(kept)-1])
	after := refsOf(kept)
	for _, key := range keys {
		_, had := before[string(key.GetId())]
		if _, has := after[string(key.GetId())]; has && !had {
			r.Keep = append(r.Keep, key)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, has := after[id]; !has {
			r.Forget = append(r.Forget, []byte(id))
		}
	}
	return r, nil
}

func withoutContent(v *statev1.BundleVersion) *statev1.BundleVersion {
	return &statev1.BundleVersion{
		TrustDomain: v.GetTrustDomain(), Number: v.GetNumber(), Sequence: v.Sequence, RefreshHint: v.RefreshHint,
		Digest:      v.GetDigest(),
		ContentGone: true, Time: v.GetTime(), Source: v.GetSource(), Statement: v.GetStatement(),
		Unstated: v.GetUnstated(), StatementDigest: v.GetStatementDigest(),
	}
}

func refsOf(versions []*statev1.BundleVersion) map[string]uint32 {
	refs := make(map[string]uint32)
	for _, v := range versions {
		for _, ref := range v.GetKeys() {
			refs[string(ref.GetId())] = ref.GetSize()
		}
	}
	return refs
}

func sizeOf(refs map[string]uint32) (bytes int) {
	for _, size := range refs {
		bytes += int(size)
	}
	return bytes
}

func keySize(k *statev1.BundleKey) uint32 {
	size := len(k.GetCertificate()) + len(k.GetKeyId()) + len(k.GetPublicKey())
	return uint32(size) //nolint:gosec // a document has at most 1 MiB
}

// historyKeys returns the authorities in the form of a history.
func historyKeys(c bundle.Content) ([]*statev1.BundleKey, error) {
	var keys []*statev1.BundleKey
	for _, cert := range c.X509Authorities {
		keys = append(keys, &statev1.BundleKey{Certificate: cert.Raw})
	}
	for _, kid := range slices.Sorted(maps.Keys(c.JWTAuthorities)) {
		spki, err := x509.MarshalPKIXPublicKey(c.JWTAuthorities[kid])
		if err != nil {
			return nil, fmt.Errorf("%w: JWT authority %s: %w", jwk.ErrKey, refusal.Clip(kid), err)
		}
		keys = append(keys, &statev1.BundleKey{KeyId: kid, PublicKey: spki})
	}
	for _, key := range keys {
		h := sha256.New()
		hashKeyParts(h, key.GetCertificate(), []byte(key.GetKeyId()), key.GetPublicKey())
		key.Id = h.Sum(nil)[:keyIDBytes]
	}
	return keys, nil
}

// ErrContentGone is the error for a version whose authorities are no longer in the history.
var ErrContentGone = errors.New("its authorities are not kept: the history of the domain would be too large with them")

// FromVersion rebuilds the bundle of a version. key returns the authorities of the history by id. It fails with
// [ErrContentGone] if the history does not have them, and if the result is not the version's bundle.
func FromVersion(v *statev1.BundleVersion, key func(id []byte) (*statev1.BundleKey, error)) (*bundle.Bundle, error) {
	td, err := bundle.ParseTrustDomain(v.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("stored version: %w", err)
	}
	b, err := fromVersion(td, v, key)
	if err != nil {
		return nil, fmt.Errorf("version %d of the bundle of %s: %w", v.GetNumber(), td, err)
	}
	return b, nil
}

func fromVersion(
	td spiffeid.TrustDomain,
	v *statev1.BundleVersion,
	key func(id []byte) (*statev1.BundleKey, error),
) (*bundle.Bundle, error) {
	if v.GetContentGone() {
		return nil, ErrContentGone
	}
	c := bundle.Content{JWTAuthorities: make(map[string]crypto.PublicKey), Sequence: v.Sequence}
	if v.RefreshHint != nil {
		c.RefreshHint = new(time.Duration(v.GetRefreshHint()) * time.Second)
	}
	for _, ref := range v.GetKeys() {
		k, err := key(ref.GetId())
		if err != nil {
			return nil, err
		}
		if len(k.GetCertificate()) > 0 {
			cert, err := x509.ParseCertificate(k.GetCertificate())
			if err != nil {
				return nil, fmt.Errorf("%w: %w", jwk.ErrKey, err)
			}
			c.X509Authorities = append(c.X509Authorities, cert)
			continue
		}
		public, err := x509.ParsePKIXPublicKey(k.GetPublicKey())
		if err != nil {
			return nil, fmt.Errorf("%w: JWT authority %s: %w", jwk.ErrKey, refusal.Clip(k.GetKeyId()), err)
		}
		c.JWTAuthorities[k.GetKeyId()] = public
	}
	b, err := bundle.New(td, c)
	if err != nil {
		return nil, err
	}
	if digest := b.Digest(); !bytes.Equal(digest[:], v.GetDigest()) {
		return nil, errors.New("the history holds other authorities for it than it had; the row was damaged")
	}
	return b, nil
}

// Signers returns the JWT authorities of b that can sign the next statement: those on P-256, the first [MaxSigners] by
// kid, without those that skip returns true for.
func Signers(b *bundle.Bundle, skip func(kid string) bool) map[string]*ecdsa.PublicKey {
	authorities := b.JWTAuthorities()
	signers := make(map[string]*ecdsa.PublicKey)
	for _, kid := range slices.Sorted(maps.Keys(authorities)) {
		key, ok := authorities[kid].(*ecdsa.PublicKey)
		if ok && key.Curve == elliptic.P256() && len(signers) < MaxSigners && !skip(kid) {
			signers[kid] = key
		}
	}
	return signers
}

// Recount returns the versions of a history after r, oldest first.
func Recount(versions []*statev1.BundleVersion, r Recorded) []*statev1.BundleVersion {
	var next []*statev1.BundleVersion
	for _, v := range versions {
		if slices.Contains(r.Drop, v.GetNumber()) {
			continue
		}
		if i := slices.IndexFunc(r.Put,
			func(put *statev1.BundleVersion) bool { return put.GetNumber() == v.GetNumber() }); i >= 0 {
			v = r.Put[i]
		}
		next = append(next, v)
	}
	return append(next, r.Put[len(r.Put)-1])
}

// hashKeyParts hashes each part after its length, as the digest of a bundle does.
func hashKeyParts(h hash.Hash, parts ...[]byte) {
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
}
