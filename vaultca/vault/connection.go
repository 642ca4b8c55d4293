package vault

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/internal/egress"
)

// Secret reads a secret when it is needed.
type Secret func() (string, error)

// Config has the address of Vault and the way to log in.
type Config struct {
	// Address is https://HOST:PORT, or http://HOST:PORT with PlainLoopback.
	Address string
	// PlainLoopback allows plain HTTP to an address of this machine, for the listener of a Vault Agent or Proxy.
	PlainLoopback bool
	// Namespace is that of Vault Enterprise, or empty.
	Namespace string
	// CAFile holds the roots of Vault's certificate in PEM. If empty, the system's roots are used. It is read at each
	// connection.
	CAFile string
	// ServerName is expected in Vault's certificate instead of the host of the address.
	ServerName string
	// Auth is the way to log in.
	Auth Auth

	Logger     hclog.Logger
	Registerer prometheus.Registerer // if nil, there are no metrics
	Now        func() time.Time      // if nil, time.Now

	// Timeout bounds one attempt of a call, RetryFor all attempts together. They are 10 s and 20 s if zero.
	Timeout, RetryFor time.Duration
}

const (
	defaultTimeout  = 10 * time.Second
	defaultRetryFor = 20 * time.Second
)

// pathPattern is narrower than Vault's rule: it has no character with a meaning in a URL or a policy.
var pathPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)

// CheckPath refuses a mount path that is not plain. Dots alone would lead elsewhere.
func CheckPath(what, path string) error {
	if !pathPattern.MatchString(path) ||
		slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return strings.Trim(s, ".") == "" }) {
		return fmt.Errorf(
			"%s %q is no path of a Vault mount; use letters, digits, _ . - and / between them",
			what,
			path,
		)
	}
	return nil
}

// Validate checks what can be checked without a call, and names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" ||
		u.User != nil || u.RawQuery != "":
		errs = append(errs, fmt.Errorf("address %q is not of the form https://HOST:PORT", c.Address))
	case u.Scheme == "http" && !c.PlainLoopback:
		errs = append(errs, fmt.Errorf("address %q is not of the form https://HOST:PORT; for a Vault Agent on this "+
			"machine, set plain_loopback = true", c.Address))
	case u.Scheme == "http" && !egress.Loopback(u.Hostname()):
		errs = append(errs, fmt.Errorf("address %q: plain_loopback allows plain HTTP to an address of this machine "+
			"alone, such as http://127.0.0.1:8100", c.Address))
	}
	if c.Namespace != "" {
		errs = append(errs, CheckPath("namespace", strings.Trim(c.Namespace, "/")))
	}
	if c.Auth == nil {
		errs = append(errs, errors.New("no auth block; one of token, approle, kubernetes and cert is needed"))
	} else {
		errs = append(errs, c.Auth.validate())
	}
	return errors.Join(errs...)
}

// WithDefaults returns the configuration with the defaults for settings that are zero.
func (c Config) WithDefaults() Config {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.RetryFor = cmp.Or(c.RetryFor, defaultRetryFor)
	return c
}
