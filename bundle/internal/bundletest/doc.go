// Package bundletest builds authorities, bundles, endpoints and chains of statements for the tests of the packages
// around it.
package bundletest
