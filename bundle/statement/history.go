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
	// Versions that are kept.
	Versions int
	// Bytes that the authorities of all of them may have, each counted once. The oldest versions lose theirs first;
	// their digests stay.
	Bytes int
}

// The depths of the two kinds of history. The bytes of authorities of a domain whose cluster has five members, in ten
// versions, are some 5 KiB; a foreign history is one row, and has to fit into a command of the store together with the
// bundle.
var (
	HostedDepth  = Depth{Versions: 100, Bytes: 256 << 10}
	ForeignDepth = Depth{Versions: 10, Bytes: 48 << 10}
)

// Recorded is what adding a version to a history changes in it.
type Recorded struct {
	// Put are the new version, and older ones that lost their content.
	Put []*statev1.BundleVersion
	// Drop are the numbers of versions that leave.
	Drop []uint64
	// Keep are authorities that no version had before, and Forget the ids of those that none has any more.
	Keep   []*statev1.BundleKey
	Forget [][]byte
}

// keyIDBytes is how much of a SHA-256 names an authority in the history of one domain. Nothing is trusted for it: a
// version that is read back is held against its whole digest.
const keyIDBytes = 16

// Record adds b to the history of its domain, whose versions are given oldest first. The versions are not changed.
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
		TrustDomain: v.GetTrustDomain(), Number: v.GetNumber(), Sequence: v.Sequence, RefreshHint: v.RefreshHint, Digest: v.GetDigest(),
		ContentGone: true, Time: v.GetTime(), Source: v.GetSource(), Statement: v.GetStatement(), Unstated: v.GetUnstated(), StatementDigest: v.GetStatementDigest(),
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
	return uint32(
		len(k.GetCertificate()) + len(k.GetKeyId()) + len(k.GetPublicKey()),
	) //nolint:gosec // a document has at most 1 MiB
}

// historyKeys are the authorities as a history stores them.
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

// ErrContentGone says that the authorities of a version are not in the history any more.
var ErrContentGone = errors.New("its authorities are not kept: the history of the domain would be too large with them")

// FromVersion builds the bundle of a version anew. key returns the authorities of the history by id. It fails with
// [ErrContentGone] where the history had no room, and if what it gets is not what the version was.
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

// Signers are the JWT authorities by which the statement after one on b can be signed: those on P-256, the first
// [MaxSigners] by kid, without those that skip names.
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

// Recount are the versions of a history after r, oldest first.
func Recount(versions []*statev1.BundleVersion, r Recorded) []*statev1.BundleVersion {
	var next []*statev1.BundleVersion
	for _, v := range versions {
		if slices.Contains(r.Drop, v.GetNumber()) {
			continue
		}
		if i := slices.IndexFunc(r.Put, func(put *statev1.BundleVersion) bool { return put.GetNumber() == v.GetNumber() }); i >= 0 {
			v = r.Put[i]
		}
		next = append(next, v)
	}
	return append(next, r.Put[len(r.Put)-1])
}

// hashKeyParts hashes each part behind its length, as the digest of a bundle does.
func hashKeyParts(h hash.Hash, parts ...[]byte) {
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
}
