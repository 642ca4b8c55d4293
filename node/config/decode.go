package config

import (
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// maxConfigBytes is the size limit of a configuration file. A typical one has a few kilobytes.
const maxConfigBytes = 1 << 20

func parseFile(path string) (*hcl.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(src) > maxConfigBytes {
		return nil, fmt.Errorf("read configuration %s: larger than %d bytes; is this the right file?",
			path, maxConfigBytes)
	}
	return parseSource(src, path)
}

func parseSource(src []byte, name string) (*hcl.File, error) {
	file, diags := hclparse.NewParser().ParseHCL(src, name)
	if diags.HasErrors() {
		return nil, sentences(diags)
	}
	return file, nil
}

// sentences converts diagnostics to one error with one line for each: the place, the mistake and the remedy.
func sentences(diags hcl.Diagnostics) error {
	line := func(d *hcl.Diagnostic) int {
		if d.Subject == nil {
			return 0
		}
		return d.Subject.Start.Line
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return line(a) - line(b) })
	var errs []error
	for _, one := range diags {
		if one.Severity != hcl.DiagError {
			continue
		}
		text := one.Detail
		if text == "" {
			text = one.Summary
		}
		text = strings.TrimSpace(strings.Join(strings.Fields(text), " "))
		if one.Subject != nil {
			text = fmt.Sprintf("%s:%d: %s", one.Subject.Filename, one.Subject.Start.Line, text)
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// block reads the settings of one block. It collects mistakes, so one error can report them all.
type block struct {
	name    string
	attrs   hcl.Attributes
	missing hcl.Range
	diags   *hcl.Diagnostics
}

// refuse adds a mistake in the setting called name. The text has the reason and the remedy.
func (b *block) refuse(name, format string, args ...any) {
	at := b.missing
	if a, ok := b.attrs[name]; ok {
		at = a.Expr.Range()
	}
	*b.diags = append(*b.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Invalid setting", Subject: &at,
		Detail: fmt.Sprintf("%s.%s: ", b.name, name) + fmt.Sprintf(format, args...),
	})
}

func (b *block) value(name string, want cty.Type) (cty.Value, bool) {
	attr, ok := b.attrs[name]
	if !ok {
		return cty.NilVal, false
	}
	v, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		*b.diags = append(*b.diags, diags...)
		return cty.NilVal, false
	}
	v, err := convert.Convert(v, want)
	if err != nil || v.IsNull() || !v.IsWhollyKnown() {
		b.refuse(name, "must be a %s", want.FriendlyName())
		return cty.NilVal, false
	}
	return v, true
}

func (b *block) text(name, def string) string {
	v, ok := b.value(name, cty.String)
	if !ok {
		return def
	}
	if v.AsString() == "" {
		b.refuse(name, "must not be empty")
	}
	return v.AsString()
}

// texts reads a list of one or more strings.
func (b *block) texts(name string) []string {
	v, ok := b.value(name, cty.List(cty.String))
	if !ok {
		return nil
	}
	if v.LengthInt() == 0 {
		b.refuse(name, "must not be empty")
	}
	var out []string
	for _, e := range v.AsValueSlice() {
		if e.IsNull() {
			b.refuse(name, "must not contain null")
			return nil
		}
		out = append(out, e.AsString())
	}
	return out
}

// boolean reads a bool.
func (b *block) boolean(name string, def bool) bool {
	v, ok := b.value(name, cty.Bool)
	if !ok {
		return def
	}
	return v.True()
}

func (b *block) integer(name string, def, low, high int) int {
	v, ok := b.value(name, cty.Number)
	if !ok {
		return def
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != big.Exact || n < int64(low) || n > int64(high) {
		b.refuse(name, "must be a whole number from %d to %d", low, high)
		return def
	}
	return int(n)
}

func (b *block) duration(name string, def, low, high time.Duration) time.Duration {
	v, ok := b.value(name, cty.String)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v.AsString())
	if err != nil {
		b.refuse(name, "%q is not a duration; write a number with a unit, such as %q", v.AsString(), def)
		return def
	}
	if d < low || d > high {
		b.refuse(name, "%s is out of bounds; it must be from %s to %s", d, low, high)
		return def
	}
	return d
}

func (b *block) choice(name, def string, among ...string) string {
	v, ok := b.value(name, cty.String)
	if !ok {
		return def
	}
	for _, a := range among {
		if v.AsString() == a {
			return a
		}
	}
	b.refuse(name, "%q is not one of %s", v.AsString(), strings.Join(among, ", "))
	return def
}

func (b *block) stalePolicy(name string) StalePolicy {
	return StalePolicy(b.choice(name, string(StaleDemote), string(StaleDemote), string(StaleKeep), string(StaleDrop)))
}

func (b *block) identifier(name string) string {
	s := b.text(name, "")
	if s != "" && !nameForm.MatchString(s) {
		b.refuse(name, "%q must be 1 to 63 lower-case letters, digits, dots, dashes and underscores, "+
			"with a letter or digit at both ends", s)
	}
	return s
}

func (b *block) hostPort(name, def string) string {
	s := b.text(name, def)
	if s == "" {
		return s
	}
	if err := checkHostPort(s); err != nil {
		b.refuse(name, "%v", err)
	}
	return s
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not an address; write host:port, such as %q", s, defaultListen)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no usable port; write host:port with a port from 1 to 65535", s)
	}
	return nil
}

func unspecified(hostPort string) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
