"""Evidence between sites: minimised copies that one site makes for another, and the checks of who reads them."""
