"""The space of DASH: kernel sizes and dilations of the convolutions of a fixed network.

``space`` is the space, ``backbones`` the published networks, ``layers`` how the convolutions of any network are found
and replaced, ``supernet`` the network of all operations at once.
"""
