package transit

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/vaultca/vault"
)

// Config is the configuration of a [Store].
type Config struct {
	// Vault is the connection and the login. It is not used if the store shares the login of an upstream.
	Vault vault.Config
	// Mount is the path of the Transit secrets engine, without slashes at its ends.
	Mount string
	// Prefix, Cluster and Member begin the names of the keys, so that members and clusters can share a mount.
	Prefix, Cluster, Member string
	// Dir is the folder on this machine that keeps the names of the keys, their public halves, and certificates.
	Dir string

	// CheckInterval is the interval at which some of the keys are checked. It is 15 s if zero.
	CheckInterval time.Duration
	// SignTimeout bounds one signature, the login included. It is 2 s if zero.
	SignTimeout time.Duration
	// ConfirmAfter is the time for which a key has to be missing before it counts as lost. It is 10 s if zero.
	ConfirmAfter time.Duration
}

// DefaultMount and DefaultKeyPrefix are the defaults of a configuration.
const (
	DefaultMount     = "transit"
	DefaultKeyPrefix = "entente"
)

const (
	// defaultSignTimeout is below the time within which another member has to sign a forwarded request.
	defaultSignTimeout   = 2 * time.Second
	defaultCheckInterval = 15 * time.Second
	defaultConfirmAfter  = 10 * time.Second
	// maxSigning bounds the signatures under way, each of which holds a connection.
	maxSigning = vault.MaxIdle
)

// namePattern is the pattern of the names of clusters and members. Without capital letters the names of keys are
// unambiguous.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// keyPattern is the pattern of names in Transit.
var keyPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]$`)

// KeyPrefix begins the names of all keys of a member in Transit or, without a member, of all keys of the cluster's
// members. Words in capitals separate the names, which have none, so that no member's prefix begins another's.
func KeyPrefix(prefix, cluster, member string) string {
	p := cmp.Or(prefix, DefaultKeyPrefix) + "-CLUSTER-" + cluster + "-MEMBER-"
	if member == "" {
		return p
	}
	return p + member + keyWord
}

// keyWord precedes the part of a name that differs between the keys of a member.
const keyWord = "-KEY-"

// Validate checks what can be checked without a call, and names everything that is wrong.
func (c Config) Validate() error {
	return errors.Join(
		c.Vault.Validate(),
		vault.CheckPath("mount", c.Mount),
		CheckKeyPrefix(c.Prefix, c.Cluster, c.Member),
	)
}

// maxKeyPrefix leaves room for the rest of a key's name within the limit of Vault's storage.
const maxKeyPrefix = 140

// CheckKeyPrefix checks the parts of the names of keys in Transit. An empty member is valid: the policy then covers the
// keys of all members. An empty prefix is the default one.
func CheckKeyPrefix(prefix, cluster, member string) error {
	var errs []error
	for _, n := range []struct{ what, name string }{{"key_prefix", cmp.Or(prefix, DefaultKeyPrefix)}, {"cluster",
		cluster}, {"member", member}} {
		if !namePattern.MatchString(n.name) && (n.what != "member" || n.name != "") {
			errs = append(
				errs,
				fmt.Errorf(
					"%s %q cannot stand in the name of a key; use 1 to 63 lower-case letters, digits, dots, dashes "+
						"and underscores",
					n.what,
					n.name,
				),
			)
		}
	}
	if p := KeyPrefix(prefix, cluster, member); len(p) > maxKeyPrefix {
		errs = append(
			errs,
			fmt.Errorf(
				"the names of keys would begin with %q, which is longer than %d characters; "+
					"choose a shorter key_prefix",
				p,
				maxKeyPrefix,
			),
		)
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Vault = c.Vault.WithDefaults()
	c.CheckInterval = cmp.Or(c.CheckInterval, defaultCheckInterval)
	c.SignTimeout = cmp.Or(c.SignTimeout, defaultSignTimeout)
	c.ConfirmAfter = cmp.Or(c.ConfirmAfter, defaultConfirmAfter)
	return c
}

// Store is a [keys.Store] whose keys are made in Vault's Transit secrets engine and never leave it: a signature is a
// call to Vault. An index on this machine has the keys' names with their public halves, and answers everything but
// signatures, with Vault sealed too.
//
// A key's public half is pinned when it is made. A signature that does not verify with it is refused
// ([vault.ErrKeyChanged]). A key that Vault reports missing, twice and some time apart, counts as lost; an outage of
// Vault never does.
type Store struct {
	config  Config
	caller  *vault.Caller
	shared  bool // the login belongs to an Upstream, which keeps it alive
	metrics *metrics
	index   *index

	ctx     context.Context // of signatures, which have none of their own; it ends with Run
	stop    context.CancelFunc
	signing chan struct{} // has an element for each signature under way
	health  health

	mu      sync.Mutex
	keys    map[string]*signingKey // by the name that the authorities know
	doomed  map[string]*signingKey // by the name in Vault: to be deleted there
	suspect map[string]suspicion   // by the name in Vault
	exposed map[string]struct{}    // by the name in Vault: those that can have left it
	blamed  map[string]time.Time   // by the name in Vault: when a key that is in its place last failed to sign
	wake    chan struct{}          // signals work for the watch
	lost    chan struct{}          // signals lost keys
}

var _ keys.Store = (*Store)(nil)

// Open reads the index. It makes no call yet: a member starts while Vault is sealed. The store shares the login of
// shared. If shared is nil, it logs in by itself.
func Open(c Config, shared *vault.Caller) (*Store, error) {
	if shared != nil {
		logger := c.Vault.Logger
		c.Vault = shared.Config
		if logger != nil {
			c.Vault.Logger = logger
		}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	t := &Store{
		config: c, caller: shared, shared: shared != nil, signing: make(chan struct{}, maxSigning),
		keys: map[string]*signingKey{}, doomed: map[string]*signingKey{}, suspect: map[string]suspicion{},
		exposed: map[string]struct{}{}, blamed: map[string]time.Time{},
		wake: make(chan struct{}, 1), lost: make(chan struct{}, 1),
	}
	var err error
	if shared == nil {
		if t.caller, err = vault.Open(c.Vault); err != nil {
			return nil, err
		}
	}
	if t.metrics, err = newMetrics(c.Vault.Registerer, t); err != nil {
		return nil, err
	}
	if t.index, err = openIndex(c.Dir); err != nil {
		return nil, err
	}
	t.health = health{rest: defaultRest, failing: map[string]error{}}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t, t.load()
}

// load reads the index. It deletes keys whose making was interrupted, and keys with a newer one of the same name.
func (t *Store) load() error {
	entries, unreadable, err := t.index.all()
	if err != nil {
		return err
	}
	for _, err := range unreadable {
		t.config.Vault.Logger.Error(
			"an entry of the index of keys cannot be read; its authority is replaced. Delete the key in Vault, and "+
				"then the file",
			"error",
			err,
		)
	}
	for _, e := range entries { // in the order of their numbers
		key := &signingKey{store: t, entry: e}
		switch e.State {
		case stateReady:
			if before := t.keys[e.Name]; before != nil {
				err = errors.Join(err, t.doom(before))
			}
			t.keys[e.Name] = key
		case stateDoomed:
			t.doomed[e.Key] = key
		default:
			err = errors.Join(err, t.doom(key))
		}
	}
	return err
}

// localName is the pattern of the names that the authorities use.
var localName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Create implements [keys.Store]. The name in Vault is new each time, so that a key of somebody else is never taken for
// this member's. It is in the index before the call, so that no key is forgotten in Vault.
func (t *Store) Create(ctx context.Context, name string) (crypto.Signer, error) {
	if !localName.MatchString(name) {
		return nil, fmt.Errorf("%q cannot stand in the name of a key in Transit", name)
	}
	e := entry{
		Name:  name,
		Mount: t.config.Mount,
		Key:   KeyPrefix(t.config.Prefix, t.config.Cluster, t.config.Member) + name + "-" + chance(),
		State: stateMaking,
	}
	e.Number = t.index.next()
	key := &signingKey{store: t, entry: e}
	if err := t.index.put(e); err != nil {
		return nil, err
	}
	var err error
	if key.entry.Public, err = makeKey(ctx, t.caller, e); err == nil {
		err = proveKey(ctx, t.caller, key.entry)
	}
	t.outcome(ctx, taskMake, err)
	if err == nil {
		key.entry.State = stateReady
		err = t.index.put(key.entry)
	}
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("make key %s in Vault's Transit: %w", name, err), t.doom(key))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.keys[name]
	t.keys[name] = key
	if before != nil {
		return key, t.doom(before)
	}
	return key, nil
}

// chance returns 80 random bits that make a name unique.
func chance() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the program instead
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// doom schedules the deletion of a key in Vault. The caller holds t.mu, or is alone.
func (t *Store) doom(key *signingKey) error {
	e := key.entry
	e.State, e.Certificate = stateDoomed, nil
	if t.keys[e.Name] == key {
		delete(t.keys, e.Name)
	}
	t.doomed[e.Key] = &signingKey{store: t, entry: e}
	delete(t.suspect, e.Key)
	delete(t.exposed, e.Key)
	delete(t.blamed, e.Key)
	signal(t.wake)
	return t.index.put(e)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *Store) get(name string) (*signingKey, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key, ok := t.keys[name]; ok {
		return key, nil
	}
	return nil, fmt.Errorf("find key %s in the index of those in Vault's Transit: %w", name, fs.ErrNotExist)
}

// Signer implements [keys.Store], from memory.
func (t *Store) Signer(name string) (crypto.Signer, error) {
	key, err := t.get(name)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// Certify implements [keys.Store]: certificates are kept in the index.
func (t *Store) Certify(_ context.Context, name string, certificate *x509.Certificate) error {
	key, err := t.get(name)
	if err != nil {
		return err
	}
	if !key.entry.Public.Equal(certificate.PublicKey) {
		return fmt.Errorf("keep a certificate with key %s: it belongs to another key", name)
	}
	certified := &signingKey{store: t, entry: key.entry}
	certified.entry.Certificate = certificate
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys[name] != key {
		return fmt.Errorf("keep a certificate with key %s: it was replaced or deleted meanwhile", name)
	}
	if err := t.index.put(certified.entry); err != nil {
		return err
	}
	t.keys[name] = certified
	return nil
}

// Certificate implements [keys.Store], from memory.
func (t *Store) Certificate(name string) (*x509.Certificate, error) {
	key, err := t.get(name)
	if err != nil {
		return nil, err
	}
	return key.entry.Certificate, nil
}

// Names implements [keys.Store], from memory. It returns this member's keys only.
func (t *Store) Names(context.Context) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.keys)), nil
}

// Delete implements [keys.Store]. The key is gone for this member at once. In Vault it is deleted now or as soon as
// Vault answers, also after restarts.
func (t *Store) Delete(_ context.Context, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key, ok := t.keys[name]; ok {
		return t.doom(key)
	}
	return nil
}

// Changed signals that keys were found to be lost: [Store.Signer] no longer returns them.
func (t *Store) Changed() <-chan struct{} { return t.lost }
