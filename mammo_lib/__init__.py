"""Reproduction of Xu et al. 2021 (doi 10.3788/LOP202158.0410007): mammogram masses, ResNet50 + CBAM, CBIS-DDSM.

Nothing heavy is imported here: torch, pydicom and matplotlib load with the room that needs them.
"""

__version__ = "0.1.0"
